// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: the target once, the CAM and its gradient. A pixel at window w takes about 8 multiply-adds
// each way for the moments of the CAM alone (tables), 4 w for the means of y and x y, 2 w for the gradient of
// x y, and 2 w more for a graded map. Derivation: sal_fast/ops/saliency_loss/README.md.
#include <memory>
#include <vector>

#include "blur.h"
#include "parallel.h"
#include "saliency_loss_lanes.h"
#include "saliency_tables.h"
#include "saliency_target.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

// The memory of one thread. Rows of the loss's width have the padding's columns on both sides. Rows that are
// to be blurred back stand between window - 1 zeros.
struct Buffers {
  Rows ring() { return arena.rows(args.window, columns); }

  const SaliencyLossArgs& args;
  Arena arena;
  int64_t h = args.cam_height, lines = cam_lines(args);
  int64_t columns = args.width + 2 * padding(args.window, args.border);
  float* target_sum = arena.row(args.target_width);
  Rows cam = arena.rows(h, args.cam_width);   // as floats
  Rows raw = arena.rows(h, args.width);       // its rows enlarged along
  float* shares = arena.row(args.cam_width);  // of a row of the CAM in a tie
  float* x_row = arena.row(columns);
  float* xy_row = arena.row(columns);
  float* yy_row = arena.row(columns);
  float* field = arena.row(columns + args.window);
  float* blurred = arena.row(columns);
  Rows y = arena.rows(args.height, columns);  // the human map: normalised, shifted, padded
  Rows x = arena.rows(lines, columns);        // the CAM's rows: enlarged along, normalised, shifted, padded
  Rows mean = arena.rows(lines, columns);     // those, blurred along
  Rows square = arena.rows(2 * lines, columns);  // the products of neighbours, blurred along
  Rows moment[3] = {ring(), ring(), ring()};     // y, x y and y y of padded rows, blurred along
  Rows spread = ring();                          // the derivative by the mean of x y, blurred along
  // Sums, to be cleared for each image.
  int64_t before = arena.used();
  Rows d_x = arena.rows(h, columns);
  Rows d_mean = arena.rows(lines, columns + args.window);
  Rows d_square = arena.rows(2 * lines, columns + args.window);
  // These are the places of the lowest and the highest values.
  Rows ties[2] = {arena.rows(h, args.width), arena.rows(h, args.width)};
};

// The value that is `weight` of a and the rest of b. Equal values, and the weights 0 and 1, are exact, so
// that ties at an extreme stay ties.
template <typename T>
T blend(T a, T b, float weight) {
  return weight < 0.5f ? b + weight * (a - b) : a + (1.0f - weight) * (b - a);
}

// Blends two rows of the CAM to one row of the map. It is not inlined, because the extremes are compared with
// its results, so that it must round the same way everywhere.
__attribute__((noinline)) void enlarge(const float* a, const float* b, float weight, int64_t length,
                                       float* out) {
  for (int64_t j = 0; j < length; j += kLanes) store(blend(load(a + j), load(b + j), weight), out + j);
}

inline Vec combine(const Banded& matrix, int64_t row, const Rows& rows, int64_t j) {
  const float* coefficients = matrix.coefficients.data() + row * matrix.width;
  const int32_t first = matrix.first[row];
  Vec total{};
  for (int32_t i = 0; i < matrix.count[row]; ++i) total += coefficients[i] * load(rows[first + i] + j);
  return total;
}

// The adjoint of combine.
inline void distribute(const Banded& matrix, int64_t row, const Rows& rows, int64_t j, Vec x) {
  const float* coefficients = matrix.coefficients.data() + row * matrix.width;
  const int32_t first = matrix.first[row];
  for (int32_t i = 0; i < matrix.count[row]; ++i) {
    float* out = rows[first + i] + j;
    store(load(out) + coefficients[i] * x, out);
  }
}

class Image : Plane {
 public:
  Image(const SaliencyLossArgs& args, const SaliencyTables& tables, float* memory)
      : Plane(args, 1.0, tables.taps.data()), args_(args), tables_(tables), buffers_{args, Arena(memory)} {
    buffers_.arena.clear();
  }

  void run(int64_t image) {
    float* const grad = args_.grad ? args_.grad + image * args_.cam_height * args_.cam_width : nullptr;
    const bool has_map = !args_.has_map || args_.has_map[image];
    const Extremes human = has_map ? reduce_target(image) : Extremes{0.0f, 0.0f};
    if (human.finite && human.flat()) return write(image, grad, 0.0f);
    const bool cam_finite = load_cam(image);
    if (!human.finite || !cam_finite) return write(image, grad, kInfinity - kInfinity);

    const bool binary = normalize_target(human);
    enlarge_along();
    extremes_ = cam_extremes();
    const bool flat = extremes_.flat();
    inverse_ = flat ? 0.0f : 1.0f / (extremes_.high - extremes_.low);
    differentiate_ = grad && !flat;
    if (differentiate_) buffers_.arena.clear(buffers_.before);
    normalize_cam();

    double loss = pixels();
    if (args_.kind == SaliencyKind::ssim_l1)
      loss += 1.0 - (binary ? similarity<true>() : similarity<false>());
    args_.values[image] = static_cast<float>(loss);
    if (!grad) return;
    if (flat) {
      std::memset(grad, 0, args_.cam_height * args_.cam_width * sizeof(float));
    } else {
      write_gradient(grad);
    }
  }

 private:
  void write(int64_t image, float* grad, float value) const {
    args_.values[image] = value;
    for (int64_t i = 0; grad && i < args_.cam_height * args_.cam_width; ++i) grad[i] = value;
  }

  // Averages the target over areas, into y without its padding.
  Extremes reduce_target(int64_t image) {
    Extremes extremes;
    for (int64_t i = 0; i < height_; ++i) {
      float* const out = buffers_.y[i] + pad_;
      average_target_row(args_, image, i, buffers_.target_sum, out);
      extremes.add_row(out, width_);
    }
    return extremes;
  }

  // Normalises, shifts and pads the target. Returns whether it is binary, so that y y is known.
  bool normalize_target(const Extremes& human) {
    const float inverse = 1.0f / (human.high - human.low);
    bool binary = true;
    for (int64_t i = 0; i < height_; ++i) {
      float* const row = buffers_.y[i];
      for (int64_t j = 0; j < width_; ++j) {
        const float y = row[pad_ + j];
        binary &= y == human.low || y == human.high;
      }
      for (int64_t j = 0; j < width_; j += kLanes)
        store(normalized(load(row + pad_ + j), human, inverse) - constants_.shift, row + pad_ + j);
      pad_row(row, outside_);
    }
    return binary;
  }

  // Returns false if the CAM holds NaN or an infinity.
  bool load_cam(int64_t image) {
    bool finite = true;
    for (int64_t i = 0; i < args_.cam_height; ++i) {
      const int64_t offset = (image * args_.cam_height + i) * args_.cam_width;
      float* const row = buffers_.cam[i];
      load_values(args_.cam, args_.dtype, offset, args_.cam_width, row);
      for (int64_t j = 0; j < args_.cam_width; ++j) finite &= row[j] - row[j] == 0.0f;
    }
    return finite;
  }

  void enlarge_along() {
    for (int64_t i = 0; i < args_.cam_height; ++i) {
      const float* cam = buffers_.cam[i];
      float* const out = buffers_.raw[i];
      for (int64_t j = 0; j < width_; ++j) {
        const auto [from, next, weight] = tables_.columns[j];
        out[j] = blend(cam[from], cam[next], weight);
      }
    }
  }

  // Enlarged rows are straight lines between those of the CAM, so the extremes are among the first and the
  // last row of each stretch.
  Extremes cam_extremes() {
    Extremes extremes;
    for (int64_t row = 0; row < height_; ++row) {
      const Source* const source = &tables_.rows[row];
      const bool ends = row == 0 || row + 1 == height_ || source[-1].from != source->from ||
                        source[1].from != source->from || source->weight == 1.0f;
      if (!ends) continue;
      enlarge_across(row);
      extremes.add_row(buffers_.x_row, width_);
    }
    return extremes;
  }

  void enlarge_across(int64_t row) {
    const auto [from, next, weight] = tables_.rows[row];
    enlarge(buffers_.raw[from], buffers_.raw[next], weight, width_, buffers_.x_row);
  }

  // The result is exactly 1 at the highest value: |x - y| has no slope where both are 1.
  static Vec normalized(Vec raw, const Extremes& extremes, float inverse) {
    const Vec x = (raw - extremes.low) * inverse;
    return inverse == 0.0f ? x : (raw == Vec{} + extremes.high ? Vec{} + 1.0f : x);
  }

  void normalize_cam() {
    for (int64_t i = 0; i < args_.cam_height; ++i) {
      float* const row = buffers_.x[i];
      for (int64_t j = 0; j < width_; j += kLanes)
        store((load(buffers_.raw[i] + j) - extremes_.low) * inverse_ - constants_.shift, row + pad_ + j);
      pad_row(row, outside_);
    }
    for (int64_t i = args_.cam_height; i < cam_lines(args_); ++i)
      for (int64_t j = 0; j < padded_width_; ++j) buffers_.x[i][j] = outside_;
  }

  // Returns the mean over pixels of |x - y|, or of (x - y)^2, and finds where the extremes stand.
  double pixels() {
    const bool mse = args_.kind == SaliencyKind::mse;
    const double scale = 1.0 / (static_cast<double>(height_) * static_cast<double>(width_));
    const float step = static_cast<float>(scale);
    double total = 0;
    for (int64_t row = 0; row < height_; ++row) {
      enlarge_across(row);
      const float* y = buffers_.y[row] + pad_;
      float* const raw = buffers_.x_row;
      const Source source = tables_.rows[row];
      Vec sums{};
      for (int64_t j = 0; j < width_; j += kLanes) {
        const Vec z = load(raw + j);
        const int64_t left = width_ - j;
        const Vec difference =
            first_lanes(normalized(z, extremes_, inverse_) - constants_.shift - load(y + j), left);
        const Vec magnitude = larger(difference, -difference);
        sums += mse ? difference * difference : magnitude;
        if (!differentiate_) continue;
        const Vec sign = difference > Vec{} ? Vec{} + step : (difference < Vec{} ? Vec{} - step : Vec{});
        const Vec gradient = mse ? 2.0f * step * difference : sign;
        add_enlarged(buffers_.d_x, pad_ + j, source, gradient);
        const auto low = z == Vec{} + extremes_.low, high = z == Vec{} + extremes_.high;
        if (!any(low) && !any(high)) continue;
        add_enlarged(buffers_.ties[0], j, source, first_lanes(low ? Vec{} + 1.0f : Vec{}, left));
        add_enlarged(buffers_.ties[1], j, source, first_lanes(high ? Vec{} + 1.0f : Vec{}, left));
      }
      total += sum(sums);
    }
    return total * scale;
  }

  // The adjoint of enlarge_across, for a vector.
  void add_enlarged(const Rows& rows, int64_t j, const Source& source, Vec x) const {
    const auto [from, next, weight] = source;
    store(load(rows[from] + j) + weight * x, rows[from] + j);
    if (next != from) store(load(rows[next] + j) + (1.0f - weight) * x, rows[next] + j);
  }

  // Returns the mean of S, and adds its gradient to d_x, d_mean and d_square.
  template <bool kBinary>
  double similarity() {
    blur_cam();
    std::memset(buffers_.spread[0], 0, window_ * buffers_.spread.stride * sizeof(float));
    const double scale = 1.0 / (static_cast<double>(down_) * static_cast<double>(across_));
    const float step = -static_cast<float>(scale);  // the loss is 1 - S
    double total = 0;
    for (int64_t row = 0; row < padded_height_; ++row) {
      load_moments<kBinary>(row);
      const int64_t v = row - window_ + 1;
      if (v < 0) continue;
      Vec sums{};
      for (int64_t j = 0; j < across_; j += kLanes) {
        constexpr int kMoments = kBinary ? 2 : 3;
        Rows rings[kMoments];
        for (int q = 0; q < kMoments; ++q) rings[q] = buffers_.moment[q];
        Vec y[kMoments];
        blur_across(taps_, window_, rings, v, j, y);
        const Vec yy = kBinary ? Vec{} + 0.25f : y[kMoments - 1];  // (+-0.5)^2
        const SsimMoments<Vec> moments{combine(tables_.mean, v, buffers_.mean, j), y[0],
                                       combine(tables_.square, v, buffers_.square, j), yy, y[1]};
        const auto terms = ssim_terms(moments, constants_);
        const int64_t left = across_ - j;
        sums += first_lanes(ssim_value(terms), left);
        if (!differentiate_) continue;
        const auto slopes = ssim_slopes(moments, terms, step);
        const int64_t at = window_ - 1 + j;
        store(first_lanes(slopes.cross, left), buffers_.field + at);
        distribute(tables_.mean, v, buffers_.d_mean, at, first_lanes(slopes.x, left));
        distribute(tables_.square, v, buffers_.d_square, at, first_lanes(slopes.square, left));
      }
      total += sum(sums);
      if (!differentiate_) continue;
      blur_along<1>(taps_, window_, {buffers_.field}, {slot(buffers_.spread, v)}, padded_width_);
      spread_to_row(v);
    }
    if (differentiate_) {
      for (int64_t row = down_; row < padded_height_; ++row) {  // padded rows below the last position
        std::memset(slot(buffers_.spread, row), 0, padded_width_ * sizeof(float));
        spread_to_row(row);
      }
      gather_blurred();
    }
    return total * scale;
  }

  void blur_cam() {
    const Rows& x = buffers_.x;
    for (int64_t i = 0; i < cam_lines(args_); ++i) {
      blur_along<1>(taps_, window_, {x[i]}, {buffers_.mean[i]}, across_);
      for (int64_t k = 0; k < 2 && i + k < cam_lines(args_); ++k) {
        for (int64_t j = 0; j < padded_width_; j += kLanes)
          store(load(x[i] + j) * load(x[i + k] + j), buffers_.xy_row + j);
        blur_along<1>(taps_, window_, {buffers_.xy_row}, {buffers_.square[2 * i + k]}, across_);
      }
    }
  }

  template <bool kBinary>
  void load_moments(int64_t row) {
    const Rows* m = buffers_.moment;
    const int64_t source = row_at(row);
    if (source < 0) {
      for (int64_t j = 0; j < across_; ++j) {
        slot(m[0], row)[j] = outside_;
        slot(m[1], row)[j] = slot(m[2], row)[j] = outside_ * outside_;
      }
      return;
    }
    const float* y = buffers_.y[source];
    const auto [from, next, weight] = tables_.rows[source];
    const float *above = buffers_.x[from], *below = buffers_.x[next];
    float *xy = buffers_.xy_row, *yy = buffers_.yy_row;
    for (int64_t j = 0; j < padded_width_; j += kLanes) {
      const Vec vy = load(y + j);
      store((weight * load(above + j) + (1.0f - weight) * load(below + j)) * vy, xy + j);
      if (!kBinary) store(vy * vy, yy + j);
    }
    blur_along<2>(taps_, window_, {y, xy}, {slot(m[0], row), slot(m[1], row)}, across_);
    if (!kBinary) blur_along<1>(taps_, window_, {yy}, {slot(m[2], row)}, across_);
  }

  // The positions [row - window + 1, row] have been seen: what this padded row gets through x y is complete.
  void spread_to_row(int64_t row) {
    const int64_t source = row_at(row);
    if (source < 0) return;
    const Rows ring[1] = {buffers_.spread};
    for (int64_t j = 0; j < padded_width_; j += kLanes) {
      Vec g[1];
      blur_across(taps_, window_, ring, row + 1, j, g);
      add_enlarged(buffers_.d_x, j, tables_.rows[source], g[0] * load(buffers_.y[source] + j));
    }
  }

  // The adjoint of blur_cam.
  void gather_blurred() {
    const Rows &x = buffers_.x, &d_x = buffers_.d_x;
    float* const blurred = buffers_.blurred;
    for (int64_t i = 0; i < args_.cam_height; ++i) {
      blur_along<1>(taps_, window_, {buffers_.d_mean[i]}, {blurred}, padded_width_);
      for (int64_t j = 0; j < padded_width_; j += kLanes)
        store(load(d_x[i] + j) + load(blurred + j), d_x[i] + j);
      for (int64_t k = 0; k < 2 && i + k < args_.cam_height; ++k) {
        blur_along<1>(taps_, window_, {buffers_.d_square[2 * i + k]}, {blurred}, padded_width_);
        for (int64_t j = 0; j < padded_width_;
             j += kLanes) {  // d (a b) = b da + a db, of the same row twice for k = 0
          const Vec a = load(x[i] + j), b = load(x[i + k] + j), d = load(blurred + j);
          store(load(d_x[i] + j) + d * b, d_x[i] + j);
          store(load(d_x[i + k] + j) + d * a, d_x[i + k] + j);
        }
      }
    }
    for (int64_t i = 0; i < args_.cam_height; ++i) fold_row(d_x[i]);
  }

  // d loss / d normalised CAM becomes that to the CAM: through the enlargement along, the range and the
  // extremes.
  void write_gradient(float* grad) {
    const int64_t h = args_.cam_height, w = args_.cam_width;
    const float inverse = inverse_, low = extremes_.low;
    double sum = 0, weighted = 0, counts[2] = {0, 0};
    float* const shares = buffers_.shares;
    for (int64_t i = 0; i < h; ++i) {
      shrink(buffers_.d_x[i] + pad_, grad + i * w);
      for (int64_t j = 0; j < w; ++j) {
        sum += grad[i * w + j];
        weighted += static_cast<double>(grad[i * w + j]) * ((buffers_.cam[i][j] - low) * inverse);
      }
      for (int t = 0; t < 2; ++t)
        for (int64_t j = 0; j < width_; ++j) counts[t] += buffers_.ties[t][i][j];
    }
    const double scale = args_.weight * inverse;
    const double by_low = -(sum - weighted) * scale / counts[0], by_high = -weighted * scale / counts[1];
    for (int64_t i = 0; i < h * w; ++i) grad[i] *= static_cast<float>(scale);
    for (int64_t i = 0; i < h; ++i)
      for (int t = 0; t < 2; ++t) {
        shrink(buffers_.ties[t][i], shares);
        for (int64_t j = 0; j < w; ++j)
          grad[i * w + j] += static_cast<float>(shares[j] * (t == 0 ? by_low : by_high));
      }
  }

  // The adjoint of enlarge_along, for a row.
  void shrink(const float* row, float* out) const {
    for (int64_t j = 0; j < args_.cam_width; ++j) out[j] = 0;
    for (int64_t j = 0; j < width_; ++j) {
      const auto [from, next, weight] = tables_.columns[j];
      out[from] += weight * row[j];
      if (next != from) out[next] += (1.0f - weight) * row[j];
    }
  }

  const SaliencyLossArgs& args_;
  const SaliencyTables& tables_;
  Buffers buffers_;
  // These belong to the image at hand.
  Extremes extremes_;
  float inverse_ = 0;
  bool differentiate_ = false;
};

// Images [begin, end) of a small size, a lane each.
void run_small(const SaliencyLossArgs& args, const float* taps, int64_t begin, int64_t end) {
  const int64_t pixels = args.height * args.width;
  const bool dense_cams = args.dtype == DType::float32;
  const bool dense_targets = args.target_type == TargetType::float32 && has_own_resolution(args);
  const Scratch memory(LaneImages(args, true, nullptr, nullptr).used());
  const Scratch sums(args.target_width + kSlack);
  const int64_t stride = pixels + kSlack;
  const Scratch floats(kLanes * stride * (!dense_cams + !dense_targets));
  LaneImages lanes(args, args.grad != nullptr, taps, memory);
  for (int64_t first = begin; first < end; first += kLanes) {
    const int64_t count = first + kLanes < end ? kLanes : end - first;
    const float *cams[kLanes] = {}, *targets[kLanes] = {};
    float* next = floats;
    for (int64_t lane = 0; lane < count; ++lane) {
      const int64_t image = first + lane;
      if (args.has_map && !args.has_map[image]) continue;
      cams[lane] = dense_cams ? static_cast<const float*>(args.cam) + image * pixels : next;
      if (!dense_cams) {
        load_values(args.cam, args.dtype, image * pixels, pixels, next);
        next += stride;
      }
      targets[lane] =
          dense_targets ? static_cast<const float*>(args.target) + image * args.target_image_stride : next;
      if (!dense_targets) {
        average_target(args, image, sums, next);
        next += stride;
      }
    }
    lanes.put(cams, targets);
    lanes.run();
    for (int64_t lane = 0; lane < count; ++lane) args.values[first + lane] = lanes.value(lane);
    if (args.grad) lanes.gradients(count, static_cast<float>(args.weight), args.grad + first * pixels);
  }
}

}  // namespace

void saliency_loss_cpu(const SaliencyLossArgs& given, int threads) {
  SaliencyLossArgs args = given;
  const Scratch own(given.values ? 0 : given.images);
  if (!given.values) args.values = own;
  const bool small = LaneImages::take(args);
  std::vector<float> taps(args.window);
  gaussian_taps(args.window, args.sigma, taps.data());
  const auto tables = small ? nullptr : std::make_unique<const SaliencyTables>(args);
  // Small images take a lane each, so that a piece of work has as many as the widest vector.
  const int64_t together = small ? 16 : 1, pieces = (args.images + together - 1) / together;
  const int64_t cost = 8 * args.height * args.width + args.target_height * args.target_width / 8;
  parallel_for(pieces, together * cost, threads, [&](int64_t begin, int64_t end) {
    const int64_t last = end * together < args.images ? end * together : args.images;
    if (small) return run_small(args, taps.data(), begin * together, last);
    const Scratch scratch(Buffers{args, Arena(nullptr)}.arena.used());
    Image image(args, *tables, scratch);
    for (int64_t i = begin; i < last; ++i) image.run(i);
  });
  if (!args.total) return;
  double total = 0;
  for (int64_t i = 0; i < args.images; ++i) total += args.values[i];
  *args.total = static_cast<float>(args.weight * total);
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
