// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// An image is a matrix X with contiguous rows, which are channels or pixels. Pooling, the map and the
// gradient's sums are all products X a (a number for each row) or X' b (a number for each column), and one
// read gives both. Bytes moved: the forward reads the features once. The backward reads them once, if a sum
// over the features is needed at all, and writes as much.
#include <vector>

#include "parallel.h"
#include "vec.h"
// vec.h comes first: the templates below find its overloads by ordinary lookup.
#include "sal_fast/cam.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

template <typename scalar>
struct Matrix {
  const scalar* data;
  int64_t rows;
  int64_t columns;
  int64_t stride;
};

// of_rows[r] = sum over n of X[r, n] column_factor[n]; of_columns[n] += sum over r of row_factor[r] X[r, n].
// A product whose result is null is left out. Arrays for columns are padded to whole vectors.
struct Products {
  const float* column_factor;
  float* of_rows;
  const float* row_factor;
  float* of_columns;
};

// For rows of at most so many vectors, the sums of the columns stay in registers.
constexpr int kNarrow = kLanes == 16 ? 4 : 8;

// Partial sums are over so many rows, because rounding grows with the number of terms.
constexpr int64_t kRowBlock = 128;

// Rows of `count` vectors, the last of which may be a part.
template <int count, bool kRows, bool kColumns, typename scalar>
void multiply_narrow(const Matrix<scalar>& x, const Products& products) {
  const int64_t last = x.columns - (count - 1) * kLanes;
  const Bits inside = first_lanes(last);
  // The last load of a row also takes values of the rows behind it, which the mask clears. In the last rows
  // it would pass the end of the image.
  const int64_t whole = x.rows - 1 - (count * kLanes - x.columns + x.stride - 1) / x.stride;
  Vec factor[count];
  for (int i = 0; kRows && i < count; ++i) factor[i] = load(products.column_factor + i * kLanes);
  for (int64_t first = 0; first < x.rows; first += kRowBlock) {
    const int64_t end = x.rows - first < kRowBlock ? x.rows : first + kRowBlock;
    Vec sums[count] = {};
    for (int64_t r = first; r < end; ++r) {
      const scalar* row = x.data + r * x.stride;
      Vec values[count];
      for (int i = 0; i < count - 1; ++i) values[i] = load(row + i * kLanes);
      const scalar* rest = row + (count - 1) * kLanes;
      values[count - 1] = r <= whole ? as_float(as_bits(load(rest)) & inside) : load_first(rest, last);
      if (kRows) {
        Vec product = values[0] * factor[0];
        for (int i = 1; i < count; ++i) product += values[i] * factor[i];
        products.of_rows[r] = sum(product);
      }
      if (kColumns)
        for (int i = 0; i < count; ++i) sums[i] += products.row_factor[r] * values[i];
    }
    for (int i = 0; kColumns && i < count; ++i)
      store(load(products.of_columns + i * kLanes) + sums[i], products.of_columns + i * kLanes);
  }
}

// `count` rows of any length from row r on.
template <int count, bool kRows, bool kColumns, typename scalar>
void multiply_rows(const Matrix<scalar>& x, int64_t r, const Products& products) {
  const scalar* row = x.data + r * x.stride;
  Vec sums[count] = {};
  const auto add = [&](int64_t n, auto load_at) {
    Vec column{};
    for (int i = 0; i < count; ++i) {
      const Vec value = load_at(row + i * x.stride + n);
      if (kRows) sums[i] += value * load(products.column_factor + n);
      if (kColumns) column += products.row_factor[r + i] * value;
    }
    if (kColumns) store(load(products.of_columns + n) + column, products.of_columns + n);
  };
  int64_t n = 0;
  for (; n + kLanes <= x.columns; n += kLanes) add(n, [](const scalar* p) { return load(p); });
  if (n < x.columns) add(n, [&](const scalar* p) { return load_first(p, x.columns - n); });
  for (int i = 0; kRows && i < count; ++i) products.of_rows[r + i] = sum(sums[i]);
}

template <bool kRows, bool kColumns, int count = 1, typename scalar>
void multiply(const Matrix<scalar>& x, const Products& products) {
  if constexpr (count <= kNarrow) {
    if (x.columns <= count * kLanes) return multiply_narrow<count, kRows, kColumns>(x, products);
    return multiply<kRows, kColumns, count + 1>(x, products);
  } else {
    constexpr int kAtOnce = 4;
    std::vector<float> block(kColumns && x.rows > kRowBlock ? padded(x.columns) : 0);
    Products partial = products;
    if (!block.empty()) partial.of_columns = block.data();
    for (int64_t r = 0; r < x.rows;) {
      const int64_t end = x.rows - r < kRowBlock ? x.rows : r + kRowBlock;
      for (; r + kAtOnce <= end; r += kAtOnce) multiply_rows<kAtOnce, kRows, kColumns>(x, r, partial);
      for (; r < end; ++r) multiply_rows<1, kRows, kColumns>(x, r, partial);
      for (int64_t n = 0; n < static_cast<int64_t>(block.size()); ++n) {
        products.of_columns[n] += block[n];
        block[n] = 0.0f;
      }
    }
  }
}

// of_channels[c] = sum over pixels of pixel_factor[p] F[c, p]; of_pixels[p] = sum over channels of
// channel_factor[c] F[c, p]. A sum whose result is null is left out. All arrays are padded to whole vectors.
template <typename scalar, typename Args>
void contract(const Args& args, int64_t image, const float* pixel_factor, float* of_channels,
              const float* channel_factor, float* of_pixels) {
  const bool nchw = args.layout == Layout::nchw;
  const Matrix<scalar> x{static_cast<const scalar*>(args.features) + image * args.image_stride,
                         nchw ? args.channels : args.pixels, nchw ? args.pixels : args.channels,
                         args.row_stride};
  const Products products = nchw ? Products{pixel_factor, of_channels, channel_factor, of_pixels}
                                 : Products{channel_factor, of_pixels, pixel_factor, of_channels};
  if (products.of_columns) std::memset(products.of_columns, 0, padded(x.columns) * sizeof(float));
  if (!products.of_columns) {
    multiply<true, false>(x, products);
  } else if (!products.of_rows) {
    multiply<false, true>(x, products);
  } else {
    multiply<true, true>(x, products);
  }
}

// out[r, n] = x[r] y[n] + constant, where the constant belongs to the row or to the column.
template <bool kConstantOfRow, typename scalar>
void add_outer(int64_t rows, int64_t columns, const float* x, const float* y, const float* constant,
               scalar* out) {
  const int64_t size = rows * columns;
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t n = 0; n < columns; n += kLanes) {
      const Vec added = kConstantOfRow ? Vec{} + constant[r] : load(constant + n);
      const Vec value = x[r] * load(y + n) + added;
      const int64_t at = r * columns + n;
      // The next row overwrites what passes the end of this one.
      if (at + kLanes <= size) {
        store(value, out + at);
      } else {
        store_partial(value, out + at, size - at);
      }
    }
  }
}

Vec load_weights(const void* values, DType dtype, int64_t at, int64_t n) {
  return with_scalar(
      dtype, [&](auto zero) { return load_first(static_cast<const decltype(zero)*>(values) + at, n); });
}

// Calls visit(c, n, the weights in the image's map of the n channels from c on), a vector at a time.
template <typename Args, typename Visit>
void for_each_weight(const Args& args, int64_t image, const float* pooled, Visit visit) {
  const int64_t target = args.target[image];
  const bool valid = target >= 0 && target < args.classes;
  for (int64_t c = 0; c < args.channels; c += kLanes) {
    const int64_t left = args.channels - c;
    const Vec w = valid ? load_weights(args.weight, args.weight_dtype, target * args.channels + c, left)
                        : Vec{} + 0.0f * kInfinity;
    visit(c, left < kLanes ? left : kLanes,
          channel_weight(w, pooled ? load_first(pooled + c, left) : Vec{}, args.probe, args.pixels));
  }
}

template <typename scalar>
void forward(const CamArgs& args, int64_t begin, int64_t end) {
  const bool pooled_first = args.pooled && args.probe == Probe::gradcampp;
  const std::vector<float> ones(padded(args.pixels), 1.0f);
  std::vector<float> weights(padded(args.channels));
  std::vector<float> of_channels(padded(args.channels)), of_pixels(padded(args.pixels));
  for (int64_t image = begin; image < end; ++image) {
    float* pooled = args.pooled ? args.pooled + image * args.channels : nullptr;
    const auto pool = [&](float* map) {
      contract<scalar>(args, image, ones.data(), of_channels.data(), weights.data(), map);
      for (int64_t c = 0; c < args.channels; ++c) pooled[c] = of_channels[c] / args.pixels;
    };
    if (!args.cam || pooled_first) pool(nullptr);
    if (!args.cam) continue;
    const float* known = pooled_first        ? pooled
                         : args.known_pooled ? args.known_pooled + image * args.channels
                                             : nullptr;
    for_each_weight(args, image, known, [&](int64_t c, int64_t n, const ChannelWeight<Vec>& weight) {
      store_partial(weight.value, &weights[c], n);
    });
    if (args.pooled && !pooled_first) {
      pool(of_pixels.data());
    } else {
      contract<scalar>(args, image, nullptr, nullptr, weights.data(), of_pixels.data());
    }
    float* cam = args.cam + image * args.pixels;
    for (int64_t p = 0; p < args.pixels; ++p) cam[p] = map_value(of_pixels[p], args.probe);
  }
}

// weight_terms: [images, channels], what each image adds to the row of its class, or null.
template <typename scalar>
void backward(const CamBackwardArgs& args, float* weight_terms, int64_t begin, int64_t end) {
  const bool reads = cam_backward_reads(args);
  const int64_t channels = args.channels, pixels = args.pixels;
  std::vector<float> map_gradient(padded(pixels)), of_channels(padded(channels));
  std::vector<float> scale(padded(channels)), constant(padded(channels));
  for (int64_t image = begin; image < end; ++image) {
    if (args.grad_pooled)
      std::memcpy(constant.data(), args.grad_pooled + image * channels, channels * sizeof(float));
    if (args.grad_cam) {
      for (int64_t p = 0; p < pixels; ++p) {
        const int64_t at = image * pixels + p;
        map_gradient[p] = sum_gradient(args.grad_cam[at], args.cam[at], args.probe);
      }
      if (reads) contract<scalar>(args, image, map_gradient.data(), of_channels.data(), nullptr, nullptr);
      for_each_weight(args, image, args.pooled + image * channels,
                      [&](int64_t c, int64_t n, const ChannelWeight<Vec>& weight) {
                        const Vec sums = load(&of_channels[c]);
                        store_partial(weight.value, &scale[c], n);
                        if (reads && args.probe == Probe::gradcampp) {
                          const Vec other = args.grad_pooled ? load(&constant[c]) : Vec{};
                          store_partial(other + sums * weight.by_pooled, &constant[c], n);
                        }
                        if (weight_terms)
                          store_partial(sums * weight.by_weight, weight_terms + image * channels + c, n);
                      });
    }
    if (!args.grad_features) continue;
    for (float& value : constant) value /= pixels;
    scalar* out = static_cast<scalar*>(args.grad_features) + image * channels * pixels;
    if (args.layout == Layout::nchw) {
      add_outer<true>(channels, pixels, scale.data(), map_gradient.data(), constant.data(), out);
    } else {
      add_outer<false>(pixels, channels, map_gradient.data(), scale.data(), constant.data(), out);
    }
  }
}

}  // namespace

void cam_cpu(const CamArgs& args, int threads) {
  parallel_for(args.images, args.channels * args.pixels, threads, [&](int64_t begin, int64_t end) {
    with_scalar(args.dtype, [&](auto zero) { forward<decltype(zero)>(args, begin, end); });
  });
}

void cam_backward_cpu(const CamBackwardArgs& args, int threads) {
  const bool terms = args.grad_weight && args.grad_cam;
  std::vector<float> weight_terms(terms ? args.images * args.channels : 0);
  parallel_for(args.images, args.channels * args.pixels, threads, [&](int64_t begin, int64_t end) {
    with_scalar(args.dtype, [&](auto zero) {
      backward<decltype(zero)>(args, terms ? weight_terms.data() : nullptr, begin, end);
    });
  });
  // Images of one class add up in their order, whatever the threads.
  for (int64_t image = 0; terms && image < args.images; ++image) {
    if (args.target[image] < 0 || args.target[image] >= args.classes) continue;
    float* row = args.grad_weight + args.target[image] * args.channels;
    const float* term = weight_terms.data() + image * args.channels;
    for (int64_t channel = 0; channel < args.channels; ++channel) row[channel] += term[channel];
  }
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
