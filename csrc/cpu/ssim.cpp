// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// A plane streams through rings of rows that stay in the cache, so that memory sees each image and each
// gradient once. The moments are those of u = x + y and v = x - y, of which there are four and not five, in
// double: 4 multiply-adds a tap along and 4 across. A gradient takes 3 and 3 more (4 and 4 for those of both
// images), in float.
#include <type_traits>
#include <utility>
#include <vector>

#include "blur.h"
#include "doubles.h"
#include "parallel.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

constexpr int kUsualWindow = 11;  // its loops are unrolled
constexpr int kMoments = 4;       // the means of u, v, u^2, v^2

// A plane is cut into bands of equal height, of at least 256 padded rows and 4 windows. Their number does not
// depend on the number of threads, and so neither do the sums.
int64_t bands_of(int64_t padded_height, int64_t window) {
  const int64_t least = 4 * window > 256 ? 4 * window : 256;
  return padded_height < 2 * least ? 1 : padded_height / least;
}

// Calls run with a zero of the type of the images.
template <typename Run>
auto with_image_type(ImageType type, Run run) {
  if (type == ImageType::uint8) return run(uint8_t{});
  if (type == ImageType::uint16) return run(uint16_t{});
  if (type == ImageType::float64) return run(double{});
  return with_scalar(static_cast<DType>(type), run);
}

// Whether means are wanted alone.
bool is_plain(const SsimArgs& args) {
  return !args.weights && !args.map && !args.grad_x && !args.grad_y;
}

// A plane is cut into strips, too, so that the rings of a wide one stay in the cache. It is left whole where
// its rows are padded, or where there are weights, a map or gradients.
int64_t strips_of(const SsimArgs& args) {
  constexpr int64_t kMostAcross = 512;
  if (args.border != Border::valid || !is_plain(args)) return 1;
  return (ssim_positions(args.width, args.window, args.border) + kMostAcross - 1) / kMostAcross;
}

// The images under the positions of one strip.
SsimArgs strip_of(const SsimArgs& args, int64_t strip, int64_t strips) {
  if (strips == 1) return args;
  const int64_t across = ssim_positions(args.width, args.window, args.border);
  const int64_t first = across * strip / strips, last = across * (strip + 1) / strips;
  const int64_t bytes =
      with_image_type(args.type, [](auto zero) { return static_cast<int64_t>(sizeof zero); });
  SsimArgs part = args;
  part.x = static_cast<const char*>(args.x) + first * args.x_strides.column * bytes;
  part.y = static_cast<const char*>(args.y) + first * args.y_strides.column * bytes;
  part.width = last - first + args.window - 1;
  return part;
}

// The positions of the window in the channels of an image.
double positions_of(const SsimArgs& args) {
  return static_cast<double>(args.channels) *
         static_cast<double>(ssim_positions(args.height, args.window, args.border)) *
         static_cast<double>(ssim_positions(args.width, args.window, args.border));
}

// The sum over an image is divided by this.
double total_of(const SsimArgs& args, int64_t image) {
  if (!args.weights) return positions_of(args);
  return args.totals ? args.totals[image] : 1.0;
}

// The taps of one window, twice: the gradient is made in float.
struct WindowTaps {
  explicit WindowTaps(const SsimArgs& args) : doubles(args.window), floats(args.window) {
    gaussian_taps(args.window, args.sigma, doubles.data());
    gaussian_taps(args.window, args.sigma, floats.data());
  }
  std::vector<double> doubles;
  std::vector<float> floats;
};

#if defined(__AVX512F__)
template <int... tap>
inline Doubles blur_usual(const double* taps, const Doubles (&at)[3], std::integer_sequence<int, tap...>) {
  constexpr int kHalf = kUsualWindow / 2;
  Doubles total = taps[kHalf] * neighbours<kHalf>(at);
  ((total += taps[tap] * (neighbours<tap>(at) + neighbours<kUsualWindow - 1 - tap>(at))), ...);
  return total;
}
#endif

// out[i] = sum_k taps[k] in[i + k]. Both taps of a pair are equal.
template <int fixed>
inline void blur_along(const double* taps, int64_t any_window, const double* in, double* out,
                       int64_t length) {
#if defined(__AVX512F__)
  if constexpr (fixed == kUsualWindow) {
    Doubles at[3] = {load(in), load(in + kDoubles), load(in + 2 * kDoubles)};
    for (int64_t i = 0; i < length; i += kDoubles) {
      store(blur_usual(taps, at, std::make_integer_sequence<int, kUsualWindow / 2>{}), out + i);
      at[0] = at[1], at[1] = at[2], at[2] = load(in + i + 3 * kDoubles);
    }
    return;
  }
#endif
  const int64_t window = fixed ? fixed : any_window, half = window / 2;
  for (int64_t i = 0; i < length; i += kDoubles) {
    Doubles total = taps[half] * load(in + i + half);
    for (int64_t k = 0; k < half; ++k) total += taps[k] * (load(in + i + k) + load(in + i + window - 1 - k));
    store(total, out + i);
  }
}

// The same across rows, for one vector of two neighbouring positions, which share all rows but two.
template <int fixed>
inline void blur_across(const double* taps, int64_t window, const double* const* rows, int64_t at,
                        Doubles (&first)[2]) {
  if constexpr (fixed) {
    constexpr int kHalf = fixed / 2;
    Doubles row[fixed + 1];
    for (int k = 0; k <= fixed; ++k) row[k] = load(rows[k] + at);
    for (int i = 0; i < 2; ++i) {
      first[i] = taps[kHalf] * row[i + kHalf];
      for (int k = 0; k < kHalf; ++k) first[i] += taps[k] * (row[i + k] + row[i + fixed - 1 - k]);
    }
  } else {
    for (int i = 0; i < 2; ++i) {
      first[i] = taps[window / 2] * load(rows[i + window / 2] + at);
      for (int64_t k = 0; k < window / 2; ++k)
        first[i] += taps[k] * (load(rows[i + k] + at) + load(rows[i + window - 1 - k] + at));
    }
  }
}

// The memory of a thread for one plane.
struct Buffers {
  Rows ring() { return arena.rows(gradients ? args.window : 0, width); }
  float* field() { return arena.row(gradients ? width + args.window : 0); }
  double* doubles() { return arena.doubles(width); }

  const SsimArgs& args;
  Arena arena;
  bool gradients = args.grad_x || args.grad_y;
  int64_t width = args.width + 2 * padding(args.window, args.border);
  // Padded rows of x and y. Two positions at a time reach one row further than a window.
  Rows image[2] = {arena.rows(args.window + 1, width), arena.rows(args.window + 1, width)};
  double* exact_image[2] = {doubles(), doubles()};  // one of each, if they are float64
  double* source[kMoments] = {doubles(), doubles(), doubles(), doubles()};  // u, v, u^2, v^2 of a row
  int64_t moments_stride = padded(width + kSlack);
  double* moments = arena.doubles((args.window + 1) * kMoments * moments_stride);  // those, blurred along
  double* weights[2] = {doubles(), doubles()};
  double* similarities = doubles();
  // For each of two positions: dS by x^2 (and y^2), x y, x, y, between window - 1 zeros and window - 1 zeros.
  float* fields[2][4] = {{field(), field(), field(), field()}, {field(), field(), field(), field()}};
  Rows spread[4] = {ring(), ring(), ring(), ring()};  // the latest, blurred along
  float* gradient = arena.row(width);                 // of a padded row
};

// The results that a call asks for, so that the inner loop need not ask: the mean alone, the mean of the
// structure's factor alone, or anything, with weights, a map or gradients.
enum class Wanted { mean, structure, any };

template <int fixed, Wanted wanted>
class Band : Plane {
 public:
  Band(const SsimArgs& args, const WindowTaps& taps, int64_t plane, float* memory)
      : Plane(args, args.data_range, taps.floats.data()),
        args_(args),
        exact_taps_(taps.doubles.data()),
        image_(plane / args.channels),
        channel_(plane % args.channels),
        plane_(plane),
        gradients_(kAny && (args.grad_x || args.grad_y)),
        scale_(1.0 / total_of(args, image_)),
        buffers_{args, Arena(memory)},
        rows_(args.window + 1) {
    buffers_.arena.clear();
  }

  // Returns the sum of S over those positions [begin, end) that exist, where begin is even. Writes the
  // gradients of the padded rows [begin, end), for which the positions that reach into them from above are
  // computed once more.
  double run(int64_t begin, int64_t end) {
    const int64_t first = !gradients_ ? begin : begin < window_ ? 0 : begin - window_ + 1;
    const int64_t last = end < down_ ? end : down_;
    if (gradients_ && border_ == Border::reflect) clear_gradients(begin, end);
    double total = 0;
    int64_t loaded = first;
    for (int64_t v = first; v < last; v += 2) {
      for (; loaded < padded_height_ && loaded <= v + window_; ++loaded) load_row(loaded);
      const int count = v + 1 < last ? 2 : 1;
      const double sum = similarity(v, count);
      if (v >= begin) total += sum;
      for (int i = 0; gradients_ && i < count; ++i) {
        spread_fields(v + i, i);
        if (v + i >= begin) write_gradients(v + i);
      }
    }
    for (int64_t row = down_; gradients_ && row < end; ++row) {  // padded rows below the last position
      for (const Rows& ring : buffers_.spread) std::memset(slot(ring, row), 0, padded_width_ * sizeof(float));
      write_gradients(row);
    }
    return total;
  }

 private:
  float* image_row(int image, int64_t row) const { return buffers_.image[image][row % (window_ + 1)]; }
  double* moments_row(int64_t row) const {
    return buffers_.moments + row % (window_ + 1) * kMoments * buffers_.moments_stride;
  }

  // Reads a padded row of both images, and blurs its moments along.
  void load_row(int64_t row) {
    const int64_t source = row_at(row);
    with_image_type(args_.type, [&](auto zero) {
      using scalar = decltype(zero);
      if constexpr (std::is_same_v<scalar, double>) {
        load_padded_row<scalar>(args_.x, args_.x_strides, source, buffers_.exact_image[0]);
        load_padded_row<scalar>(args_.y, args_.y_strides, source, buffers_.exact_image[1]);
        combine(buffers_.exact_image[0], buffers_.exact_image[1]);
      } else {
        load_padded_row<scalar>(args_.x, args_.x_strides, source, image_row(0, row));
        load_padded_row<scalar>(args_.y, args_.y_strides, source, image_row(1, row));
        combine(image_row(0, row), image_row(1, row));
      }
    });
    for (int q = 0; q < kMoments; ++q)
      blur_along<fixed>(exact_taps_, window_, buffers_.source[q],
                        moments_row(row) + q * buffers_.moments_stride, across_);
  }

  template <typename scalar, typename Value>
  void load_padded_row(const void* data, const PlaneStrides& strides, int64_t source, Value* row) const {
    if (source < 0) {
      std::memset(row, 0, padded_width_ * sizeof *row);
      return;
    }
    const auto* from = static_cast<const scalar*>(data) + image_ * strides.image +
                       channel_ * strides.channel + source * strides.row;
    if constexpr (std::is_same_v<scalar, double>) {
      for (int64_t i = 0; i < width_; ++i) row[pad_ + i] = from[i * strides.column];
    } else {
      for (int64_t i = 0; i < width_; i += kLanes)
        store(load_strided(from + i * strides.column, strides.column, width_ - i), row + pad_ + i);
    }
    pad_row(row, Value{});
  }

  template <typename Value>
  void combine(const Value* x, const Value* y) {
    double *const u_row = buffers_.source[0], *const v_row = buffers_.source[1];
    double *const uu_row = buffers_.source[2], *const vv_row = buffers_.source[3];
    const double range = args_.data_range;
    for (int64_t j = 0; j < padded_width_; j += kDoubles) {
      const Doubles a = load_doubles(x + j), b = load_doubles(y + j);
      const Doubles u = a + b - range, v = a - b;
      store(u, u_row + j);
      store(v, v_row + j);
      store(u * u, uu_row + j);
      store(v * v, vv_row + j);
    }
  }

  // From the means m of u, v, u^2, v^2. Variances below 0 come from rounding; NaN stays NaN.
  SsimTerms<Doubles> terms_of(const Doubles (&m)[kMoments]) const {
    const Doubles uu = 0.5 * larger(Doubles{}, m[2] - m[0] * m[0]);
    const Doubles vv = 0.5 * larger(Doubles{}, m[3] - m[1] * m[1]);
    const Doubles u = m[0] + args_.data_range, v = m[1];
    const Doubles sum = 0.5 * u * u, difference = 0.5 * v * v;
    const SsimTerms<Doubles> terms{0.5 * (u + v),          0.5 * (u - v), sum - difference + c1_,
                                   sum + difference + c1_, uu - vv + c2_, uu + vv + c2_};
    return wanted == Wanted::structure || (kAny && args_.structure) ? without_luminance(terms) : terms;
  }

  // The sum of S, times the weights, over the rows of positions v and, if `count` is 2, v + 1. Their slopes
  // go into the fields.
  double similarity(int64_t v, int count) {
    const bool gradients = kAny && gradients_, weighted = kAny && args_.weights, mapped = kAny && args_.map;
    for (int64_t k = 0; k <= window_; ++k) rows_[k] = moments_row(v + k);
    for (int i = 0; weighted && i < count; ++i) load_weights(v + i, buffers_.weights[i]);
    Doubles total{};
    for (int64_t j = 0; j < across_; j += kDoubles) {
      Doubles pairs[kMoments][2];
      for (int q = 0; q < kMoments; ++q)
        blur_across<fixed>(exact_taps_, window_, rows_.data(), q * buffers_.moments_stride + j, pairs[q]);
      Doubles over[2], under[2];
      for (int i = 0; i < 2; ++i) {
        const Doubles m[kMoments] = {pairs[0][i], pairs[1][i], pairs[2][i], pairs[3][i]};
        const auto terms = terms_of(m);
        over[i] = terms.luminance_over * terms.structure_over;
        under[i] = terms.luminance_under * terms.structure_under;
        if (weighted) over[i] *= load(buffers_.weights[i] + j);
        if (gradients && i < count) store_slopes(m, terms, i, j);
        if (mapped && i < count) write_similarities(v + i, j, ssim_value(terms));
      }
      if (count == 1) over[1] = Doubles{}, under[1] = Doubles{} + 1.0;
      // One division for both.
      total += first_lanes((over[0] * under[1] + over[1] * under[0]) / (under[0] * under[1]), across_ - j);
    }
    return sum(total);
  }

  void load_weights(int64_t v, double* row) const {
    const PlaneStrides& strides = args_.weights_strides;
    const float* from = args_.weights + image_ * strides.image + channel_ * strides.channel + v * strides.row;
    for (int64_t j = 0; j < across_; ++j) row[j] = from[j * strides.column];
  }

  void write_similarities(int64_t v, int64_t j, Doubles values) const {
    const int64_t at = (plane_ * down_ + v) * across_ + j;
    for (int64_t i = 0; i < kDoubles && i < across_ - j; ++i) {
      if (args_.exact)
        static_cast<double*>(args_.map)[at + i] = values[i];
      else
        static_cast<float*>(args_.map)[at + i] = static_cast<float>(values[i]);
    }
  }

  // In float: the gradient is.
  void store_slopes(const Doubles (&m)[kMoments], const SsimTerms<Doubles>& t, int row, int64_t j) {
    const SsimMoments<Floats> moments{
        as_floats(0.5 * (m[0] + m[1])), as_floats(0.5 * (m[0] - m[1])), {}, {}, {}};
    const SsimTerms<Floats> terms{as_floats(t.mean_x),         as_floats(t.mean_y),
                                  as_floats(t.luminance_over), as_floats(t.luminance_under),
                                  as_floats(t.structure_over), as_floats(t.structure_under)};
    const Doubles weight = args_.weights ? load(buffers_.weights[row] + j) : Doubles{} + 1.0;
    const auto slopes = ssim_slopes(moments, terms, as_floats(scale_ * weight));
    const Floats derivatives[4] = {slopes.square, slopes.cross, slopes.x, slopes.y};
    for (int q = 0; q < 4; ++q)
      store_first(derivatives[q], buffers_.fields[row][q] + window_ - 1 + j, across_ - j);
  }

  // Blurs the fields of positions v along, back over the columns that they come from.
  void spread_fields(int64_t v, int row) {
    float* const* f = buffers_.fields[row];
    const Rows* s = buffers_.spread;
    sal_fast::blur_along<2, fixed>(taps_, window_, {f[0], f[1]}, {slot(s[0], v), slot(s[1], v)},
                                   padded_width_);
    if (args_.grad_x) sal_fast::blur_along<1, fixed>(taps_, window_, {f[2]}, {slot(s[2], v)}, padded_width_);
    if (args_.grad_y) sal_fast::blur_along<1, fixed>(taps_, window_, {f[3]}, {slot(s[3], v)}, padded_width_);
  }

  // The positions [row - window + 1, row] have been seen, so the gradient of this padded row is complete.
  void write_gradients(int64_t row) {
    const float* x = image_row(0, row);
    const float* y = image_row(1, row);
    if (args_.grad_x) write_gradient(2, x, y, row, args_.grad_x);
    if (args_.grad_y) write_gradient(3, y, x, row, args_.grad_y);
  }

  // `own` is the field of the gradient's own mean. The moments are those of shifted images.
  void write_gradient(int own, const float* self, const float* other, int64_t row, float* grad) {
    const int64_t source = row_at(row);
    if (source < 0) return;
    const Rows spread[3] = {buffers_.spread[0], buffers_.spread[1], buffers_.spread[own]};
    float* const padded = buffers_.gradient;
    for (int64_t j = 0; j < padded_width_; j += kLanes) {
      Vec g[3];
      sal_fast::blur_across<3, fixed>(taps_, window_, spread, row + 1, j, g);
      const Vec x = load(self + j) - constants_.shift, y = load(other + j) - constants_.shift;
      store(g[2] + 2.0f * x * g[0] + y * g[1], padded + j);
    }
    fold_row(padded);
    float* const out = grad + (plane_ * height_ + source) * width_;
    if (border_ == Border::reflect) {
      for (int64_t j = 0; j < width_; ++j) out[j] += padded[pad_ + j];
    } else {
      std::memcpy(out, padded + pad_, width_ * sizeof(float));
    }
  }

  // Padded rows are added to the row they mirror. Bands are tall enough for it to be in the same one.
  void clear_gradients(int64_t begin, int64_t end) {
    const int64_t first = begin < pad_ ? 0 : begin - pad_;
    const int64_t last = end - pad_ < height_ ? end - pad_ : height_;
    const int64_t offset = (plane_ * height_ + first) * width_;
    const int64_t bytes = (last - first) * width_ * sizeof(float);
    if (args_.grad_x) std::memset(args_.grad_x + offset, 0, bytes);
    if (args_.grad_y) std::memset(args_.grad_y + offset, 0, bytes);
  }

  static constexpr bool kAny = wanted == Wanted::any;

  const SsimArgs& args_;
  const double* const exact_taps_;
  const int64_t image_, channel_, plane_;
  const bool gradients_;
  const double scale_;
  const double c1_ = kSsimK1 * args_.data_range * (kSsimK1 * args_.data_range);
  const double c2_ = kSsimK2 * args_.data_range * (kSsimK2 * args_.data_range);
  Buffers buffers_;
  std::vector<const double*> rows_;  // of the moments, under the windows of two positions
};

// Calls run with the window, if it is the usual one (0: any), and with what is wanted.
template <typename Run>
void with_wanted(const SsimArgs& args, Run run) {
  using Usual = std::integral_constant<int, kUsualWindow>;
  if (args.window != kUsualWindow)
    run(std::integral_constant<int, 0>{}, std::integral_constant<Wanted, Wanted::any>{});
  else if (!is_plain(args))
    run(Usual{}, std::integral_constant<Wanted, Wanted::any>{});
  else if (args.structure)
    run(Usual{}, std::integral_constant<Wanted, Wanted::structure>{});
  else
    run(Usual{}, std::integral_constant<Wanted, Wanted::mean>{});
}

}  // namespace

void ssim_cpu(const SsimArgs& args, int threads) {
  const int64_t padded = args.height + 2 * padding(args.window, args.border);
  const int64_t bands = bands_of(padded, args.window), tall = padded / bands / 2 * 2;
  const int64_t strips = strips_of(args), parts = bands * strips, parts_of_image = args.channels * parts;
  SsimArgs widest = strip_of(args, 0, strips);
  widest.width += strips > 1;  // others may be wider by one
  const int64_t memory = Buffers{widest, Arena(nullptr)}.arena.used();
  const WindowTaps taps(args);
  std::vector<double> sums(args.images * parts_of_image);
  with_wanted(args, [&](auto window, auto wanted) {
    parallel_for(sums.size(), args.height * args.width, threads, [&](int64_t begin, int64_t end) {
      const Scratch scratch(memory);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t plane = i / parts, band = i % parts / strips;
        const int64_t first = band * tall, last = band + 1 == bands ? padded : first + tall;
        const SsimArgs strip = strip_of(args, i % strips, strips);
        sums[i] = Band<window(), wanted()>(strip, taps, plane, scratch).run(first, last);
      }
    });
  });
  for (int64_t image = 0; args.values && image < args.images; ++image) {
    double total = 0;
    for (int64_t part = 0; part < parts_of_image; ++part) total += sums[image * parts_of_image + part];
    total /= total_of(args, image);
    if (args.exact)
      static_cast<double*>(args.values)[image] = total;
    else
      static_cast<float*>(args.values)[image] = static_cast<float>(total);
  }
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
