// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// A plane streams through rings of `window` rows that stay in the L1 or L2 cache, so that memory sees each
// image and each gradient once. Each position and tap takes 5 multiply-adds along and 5 across, and 3 and 3
// more for a gradient (4 and 4 for those of both images).
#include <vector>

#include "blur.h"
#include "parallel.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

// A plane is cut into bands of equal height, of at least 256 padded rows and 4 windows. Their number does not
// depend on the number of threads, and so neither do the sums.
int64_t bands_of(int64_t padded_height, int64_t window) {
  const int64_t least = 4 * window > 256 ? 4 * window : 256;
  return padded_height < 2 * least ? 1 : padded_height / least;
}

// The positions of the window in the channels of an image.
double positions_of(const SsimArgs& args) {
  return static_cast<double>(args.channels) *
         static_cast<double>(ssim_positions(args.height, args.window, args.border)) *
         static_cast<double>(ssim_positions(args.width, args.window, args.border));
}

// The memory of a thread for one plane. A ring holds the `window` latest rows.
struct Buffers {
  Rows ring() { return arena.rows(args.window, width); }
  float* field() { return arena.row(width + args.window); }

  const SsimArgs& args;
  Arena arena;
  int64_t width = args.width + 2 * padding(args.window, args.border);
  Rows image[2] = {ring(), ring()};                           // padded rows of x and y
  Rows products = arena.rows(3, width);                       // xx, yy, xy
  Rows moment[5] = {ring(), ring(), ring(), ring(), ring()};  // x, y, xx, yy, xy, blurred along
  // dS by xx, xy, x, y, each between window - 1 zeros and window - 1 zeros
  float* fields[4] = {field(), field(), field(), field()};
  Rows spread[4] = {ring(), ring(), ring(), ring()};  // those, blurred along
  float* gradient = arena.row(width);                 // of a padded row
};

class Band : Plane {
 public:
  Band(const SsimArgs& args, const float* taps, int64_t plane, float* memory)
      : Plane(args, args.data_range, taps),
        args_(args),
        plane_(plane),
        scale_(static_cast<float>(1.0 / positions_of(args))),
        buffers_{args, Arena(memory)} {
    buffers_.arena.clear();
  }

  // Returns the sum of S over those positions [begin, end) that exist. Writes the gradients of the padded
  // rows [begin, end), for which the positions that reach into them from above are computed once more.
  double run(int64_t begin, int64_t end) {
    const bool gradients = args_.grad_x || args_.grad_y;
    const int64_t first = !gradients || begin < window_ ? (gradients ? 0 : begin) : begin - window_ + 1;
    if (gradients && border_ == Border::reflect) clear_gradients(begin, end);
    double total = 0;
    for (int64_t row = first; row < padded_height_ && row < end + window_ - 1; ++row) {
      load_rows(row);
      const int64_t v = row - window_ + 1;
      if (v < first) continue;
      const double sum = similarity(v, gradients);
      if (v < begin) continue;
      total += sum;
      if (gradients) write_gradients(v);
    }
    for (int64_t row = down_; gradients && row < end; ++row) {  // padded rows below the last position
      for (const Rows& ring : buffers_.spread) std::memset(slot(ring, row), 0, padded_width_ * sizeof(float));
      write_gradients(row);
    }
    return total;
  }

 private:
  void load_rows(int64_t row) {
    const int64_t source = row_at(row);
    float* const x = slot(buffers_.image[0], row);
    float* const y = slot(buffers_.image[1], row);
    load_padded_row(args_.x, args_.x_strides, source, x);
    load_padded_row(args_.y, args_.y_strides, source, y);
    float *xx = buffers_.products[0], *yy = buffers_.products[1], *xy = buffers_.products[2];
    for (int64_t j = 0; j < padded_width_; j += kLanes) {
      const Vec vx = load(x + j), vy = load(y + j);
      store(vx * vx, xx + j);
      store(vy * vy, yy + j);
      store(vx * vy, xy + j);
    }
    const Rows* m = buffers_.moment;
    blur_along<5>(taps_, window_, {x, y, xx, yy, xy},
                  {slot(m[0], row), slot(m[1], row), slot(m[2], row), slot(m[3], row), slot(m[4], row)},
                  across_);
  }

  void load_padded_row(const void* data, const PlaneStrides& strides, int64_t source, float* row) const {
    if (source < 0) {
      for (int64_t j = 0; j < padded_width_; ++j) row[j] = outside_;
      return;
    }
    const int64_t offset = plane_ / args_.channels * strides.image +
                           plane_ % args_.channels * strides.channel + source * strides.row;
    with_scalar(args_.dtype, [&](auto zero) {
      const auto* from = static_cast<const decltype(zero)*>(data) + offset;
      for (int64_t i = 0; i < width_; i += kLanes) {
        const Vec values = load_strided(from + i * strides.column, strides.column, width_ - i);
        store(values - constants_.shift, row + pad_ + i);
      }
    });
    pad_row(row);
  }

  // The sum of S over a row of positions. Its derivatives, blurred along, go into the rings.
  double similarity(int64_t v, bool gradients) {
    Vec total{};
    for (int64_t j = 0; j < across_; j += kLanes) {
      Vec m[5];
      blur_across(taps_, window_, buffers_.moment, v, j, m);
      const SsimMoments<Vec> moments{m[0], m[1], m[2], m[3], m[4]};
      const auto terms = ssim_terms(moments, constants_);
      const int64_t left = across_ - j;
      total += first_lanes(ssim_value(terms), left);
      if (!gradients) continue;
      const auto slopes = ssim_slopes(moments, terms, scale_);
      const Vec derivatives[4] = {slopes.square, slopes.cross, slopes.x, slopes.y};
      for (int q = 0; q < 4; ++q)
        store(first_lanes(derivatives[q], left), buffers_.fields[q] + window_ - 1 + j);
    }
    float* const* f = buffers_.fields;
    const Rows* s = buffers_.spread;
    if (gradients) blur_along<2>(taps_, window_, {f[0], f[1]}, {slot(s[0], v), slot(s[1], v)}, padded_width_);
    if (args_.grad_x) blur_along<1>(taps_, window_, {f[2]}, {slot(s[2], v)}, padded_width_);
    if (args_.grad_y) blur_along<1>(taps_, window_, {f[3]}, {slot(s[3], v)}, padded_width_);
    return sum(total);
  }

  // The positions [row - window + 1, row] have been seen, so the gradient of this padded row is complete.
  void write_gradients(int64_t row) {
    const float* x = slot(buffers_.image[0], row);
    const float* y = slot(buffers_.image[1], row);
    if (args_.grad_x) write_gradient(2, x, y, row, args_.grad_x);
    if (args_.grad_y) write_gradient(3, y, x, row, args_.grad_y);
  }

  // `own` is the field of the gradient's own mean.
  void write_gradient(int own, const float* self, const float* other, int64_t row, float* grad) {
    const int64_t source = row_at(row);
    if (source < 0) return;
    const Rows spread[3] = {buffers_.spread[0], buffers_.spread[1], buffers_.spread[own]};
    float* const padded = buffers_.gradient;
    for (int64_t j = 0; j < padded_width_; j += kLanes) {
      Vec g[3];
      blur_across(taps_, window_, spread, row + 1, j, g);
      store(g[2] + 2.0f * load(self + j) * g[0] + load(other + j) * g[1], padded + j);
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

  const SsimArgs& args_;
  const int64_t plane_;
  const float scale_;
  Buffers buffers_;
};

}  // namespace

void ssim_cpu(const SsimArgs& args, int threads) {
  const int64_t padded = args.height + 2 * padding(args.window, args.border);
  const int64_t bands = bands_of(padded, args.window), tall = padded / bands, parts = args.channels * bands;
  const int64_t memory = Buffers{args, Arena(nullptr)}.arena.used();
  std::vector<float> taps(args.window);
  gaussian_taps(args.window, args.sigma, taps.data());
  std::vector<double> sums(args.images * parts);
  parallel_for(args.images * parts, args.height * args.width, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(memory);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i % bands * tall, last = (i + 1) % bands == 0 ? padded : first + tall;
      sums[i] = Band(args, taps.data(), i / bands, scratch).run(first, last);
    }
  });
  for (int64_t image = 0; image < args.images; ++image) {
    double total = 0;
    for (int64_t part = 0; part < parts; ++part) total += sums[image * parts + part];
    args.values[image] = static_cast<float>(total / positions_of(args));
  }
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
