// The loss at the resolution of a small CAM. Each lane has an image, so that nothing is reduced across lanes
// and no part of a 7-wide row is wasted.
#pragma once

#include "blur.h"
#include "saliency_target.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

// An array whose elements are vectors.
struct Lanes {
  float* first;
  Vec operator[](int64_t i) const { return load(first + i * kLanes); }
  void set(int64_t i, Vec x) const { store(x, first + i * kLanes); }
  void add(int64_t i, Vec x) const { set(i, (*this)[i] + x); }
  float& lane(int64_t i, int64_t lane) const { return first[i * kLanes + lane]; }
};

class LaneImages : Plane {
  using Mask = decltype(Vec{} < Vec{});

 public:
  // Whether the images are so small that each takes a lane. The arrays of larger ones, times the lanes, would
  // not fit in the cache.
  static bool take(const SaliencyLossArgs& args) {
    constexpr int64_t kMostPixels = 1024;
    return args.height == args.cam_height && args.width == args.cam_width &&
           args.height * args.width <= kMostPixels;
  }

  // `with_gradient`: whether gradients will be asked for.
  LaneImages(const SaliencyLossArgs& args, bool with_gradient, const float* taps, float* memory)
      : Plane(args, 1.0, taps), kind_(args.kind), with_gradient_(with_gradient), arena_(memory) {}

  int64_t used() const { return arena_.used(); }

  // Empties all lanes. The loss of an empty lane is 0.
  void clear() const {
    std::memset(raw_.first, 0, pixels_ * kLanes * sizeof(float));
    std::memset(y_.first, 0, pixels_ * kLanes * sizeof(float));
  }

  // Gives a CAM and a target of the loss's resolution, dense rows of floats, to a lane.
  void put(int64_t lane, const float* cam, const float* target) const {
    for (int64_t p = 0; p < pixels_; ++p) {
      raw_.lane(p, lane) = cam[p];
      y_.lane(p, lane) = target[p];
    }
  }

  // Gives them to all lanes. A lane that is given null for both is empty.
  void put(const float* const (&cams)[kLanes], const float* const (&targets)[kLanes]) const {
    put(cams, raw_);
    put(targets, y_);
  }

  // Computes the losses of all lanes, and the gradients to their CAMs.
  void run() {
    Range cam, human;
    for (int64_t p = 0; p < pixels_; ++p) {
      cam.add(raw_[p]);
      human.add(y_[p]);
    }
    cam.finish();
    human.finish();
    Vec loss = pixel_terms(cam, human);
    if (kind_ == SaliencyKind::ssim_l1) loss += 1.0f - similarity();
    const Mask counts = ~(human.flat & ~human.bad), bad = human.bad | cam.bad;
    const Vec not_a_number = Vec{} + (kInfinity - kInfinity);
    const auto masked = [&](Vec x) { return counts ? (bad ? not_a_number : x) : Vec{}; };
    store(masked(loss), values_);
    if (with_gradient_) through_range(cam, masked);
  }

  float value(int64_t lane) const { return values_[lane]; }

  // out = weight d value / d cam
  void gradient(int64_t lane, float weight, float* out) const {
    for (int64_t p = 0; p < pixels_; ++p) out[p] = weight * d_.lane(p, lane);
  }

  // The same for the images of the first `count` lanes, to grad[image].
  void gradients(int64_t count, float weight, float* grad) const {
    for (int64_t p = 0; p < whole_; p += kLanes) {
      Vec square[kLanes];
      for (int k = 0; k < kLanes; ++k) square[k] = weight * d_[p + k];
      transpose(square);
      for (int64_t i = 0; i < count; ++i) store(square[i], grad + i * pixels_ + p);
    }
    for (int64_t p = whole_; p < pixels_; ++p)
      for (int64_t i = 0; i < count; ++i) grad[i * pixels_ + p] = weight * d_.lane(p, i);
  }

 private:
  void put(const float* const (&images)[kLanes], const Lanes& out) const {
    for (int64_t p = 0; p < whole_; p += kLanes) {
      Vec square[kLanes];
      for (int i = 0; i < kLanes; ++i) square[i] = images[i] ? load(images[i] + p) : Vec{};
      transpose(square);
      for (int k = 0; k < kLanes; ++k) out.set(p + k, square[k]);
    }
    for (int64_t p = whole_; p < pixels_; ++p)
      for (int i = 0; i < kLanes; ++i) out.lane(p, i) = images[i] ? images[i][p] : 0.0f;
  }

  struct Range {
    Vec low = Vec{} + kInfinity, high = Vec{} - kInfinity, other{};
    Vec inverse;     // of the range, 0 for a flat map
    Mask flat, bad;  // bad: NaN or an infinity

    void add(Vec x) {
      low = smaller(x, low);
      high = larger(x, high);
      other += x - x;
    }
    void finish() {
      const Vec magnitude = larger(larger(high, -high), larger(low, -low));
      flat = high - low <= larger(kFlat * magnitude, Vec{} + kNoRange);
      bad = other != Vec{};
      inverse = flat ? Vec{} : 1.0f / (high - low);
    }
    // Exactly 1 at the highest value: |x - y| has no slope where both are 1.
    Vec normalized(Vec x) const { return (x == high) & ~flat ? Vec{} + 1.0f : (x - low) * inverse; }
  };

  // Normalises the CAM and the map, shifted by half the range. Returns the mean of |x - y|, or of (x - y)^2,
  // and makes its gradient.
  Vec pixel_terms(const Range& cam, const Range& human) {
    const float step = 1.0f / static_cast<float>(pixels_);
    Vec total{};
    for (int64_t p = 0; p < pixels_; ++p) {
      const Vec x = cam.normalized(raw_[p]) - constants_.shift,
                y = human.normalized(y_[p]) - constants_.shift;
      x_.set(p, x);
      y_.set(p, y);
      const Vec difference = x - y;
      if (kind_ == SaliencyKind::mse) {
        total += difference * difference;
        d_.set(p, 2.0f * step * difference);
      } else {
        total += larger(difference, -difference);
        d_.set(p, difference > Vec{} ? Vec{} + step : (difference < Vec{} ? Vec{} - step : Vec{}));
      }
    }
    return total * step;
  }

  // The mean of S, and its gradient.
  Vec similarity() {
    for (const Lanes& spread : spread_)
      std::memset(spread.first, 0, height_ * across_ * kLanes * sizeof(float));
    blur_rows();
    const float squared = outside_ * outside_;
    const float padding_of[5] = {outside_, outside_, squared, squared, squared};
    const float step = 1.0f / static_cast<float>(down_ * across_);
    Vec total{};
    for (int64_t v = 0; v < down_; ++v)
      for (int64_t u = 0; u < across_; ++u) {
        Vec m[5] = {};
        for (int64_t k = 0; k < window_; ++k) {
          const int64_t row = row_at(v + k);
          for (int q = 0; q < 5; ++q)
            m[q] += taps_[k] * (row < 0 ? Vec{} + padding_of[q] : moments_[q][row * across_ + u]);
        }
        const SsimMoments<Vec> moments{m[0], m[1], m[2], m[3], m[4]};
        const auto terms = ssim_terms(moments, constants_);
        total += ssim_value(terms);
        if (!with_gradient_) continue;
        const auto slopes = ssim_slopes(moments, terms, -step);  // the loss is 1 - S
        for (int64_t k = 0; k < window_; ++k) {
          const int64_t row = row_at(v + k);
          if (row < 0) continue;
          spread_[0].add(row * across_ + u, taps_[k] * slopes.x);
          spread_[1].add(row * across_ + u, taps_[k] * slopes.square);
          spread_[2].add(row * across_ + u, taps_[k] * slopes.cross);
        }
      }
    if (with_gradient_) spread_rows();
    return total * step;
  }

  void blur_rows() {
    for (int64_t row = 0; row < height_; ++row)
      for (int64_t u = 0; u < across_; ++u) {
        Vec m[5] = {};
        for (int64_t k = 0; k < window_; ++k) {
          const int64_t column = column_at(u + k);
          const Vec x = column < 0 ? Vec{} + outside_ : x_[row * width_ + column];
          const Vec y = column < 0 ? Vec{} + outside_ : y_[row * width_ + column];
          const Vec tx = taps_[k] * x, ty = taps_[k] * y;
          m[0] += tx;
          m[1] += ty;
          m[2] += tx * x;
          m[3] += ty * y;
          m[4] += tx * y;
        }
        for (int q = 0; q < 5; ++q) moments_[q].set(row * across_ + u, m[q]);
      }
  }

  // The adjoint of blur_rows, for x.
  void spread_rows() {
    for (int64_t row = 0; row < height_; ++row)
      for (int64_t u = 0; u < across_; ++u) {
        const int64_t at = row * across_ + u;
        const Vec by_x = spread_[0][at], by_xx = 2.0f * spread_[1][at], by_xy = spread_[2][at];
        for (int64_t k = 0; k < window_; ++k) {
          const int64_t column = column_at(u + k);
          if (column < 0) continue;
          const int64_t p = row * width_ + column;
          d_.add(p, taps_[k] * (by_x + by_xx * x_[p] + by_xy * y_[p]));
        }
      }
  }

  // d loss / d normalised CAM becomes that to the CAM: through the range and the extremes. `masked` gives
  // what counts of it.
  template <typename Masked>
  void through_range(const Range& cam, Masked masked) {
    Vec sum{}, weighted{}, lows{}, highs{};
    for (int64_t p = 0; p < pixels_; ++p) {
      sum += d_[p];
      weighted += d_[p] * (x_[p] + constants_.shift);
      lows += raw_[p] == cam.low ? Vec{} + 1.0f : Vec{};
      highs += raw_[p] == cam.high ? Vec{} + 1.0f : Vec{};
    }
    const Vec by_low = (weighted - sum) * cam.inverse / lows, by_high = -weighted * cam.inverse / highs;
    // With a choice by `?:` GCC moves the divisions into the loop.
    const auto where = [](Mask mask, Vec x) { return as_float((Bits)mask & as_bits(x)); };
    for (int64_t p = 0; p < pixels_; ++p) {
      const Vec d = d_[p] * cam.inverse + where(raw_[p] == cam.low, by_low);
      d_.set(p, masked(d + where(raw_[p] == cam.high, by_high)));
    }
  }

  Lanes lanes(int64_t count) { return {arena_.row(count * kLanes)}; }
  Lanes strip() { return lanes(height_ * across_); }

  const SaliencyKind kind_;
  const bool with_gradient_;
  Arena arena_;
  const int64_t pixels_ = height_ * width_;
  const int64_t whole_ = pixels_ / kLanes * kLanes;      // the pixels that are transposed, a square at a time
  const Lanes raw_ = lanes(pixels_);                     // the CAM
  const Lanes x_ = lanes(pixels_), y_ = lanes(pixels_);  // it and the map, normalised and shifted
  const Lanes d_ = lanes(pixels_);                       // the gradient
  const Lanes moments_[5] = {strip(), strip(), strip(), strip(), strip()};  // x, y, xx, yy, xy, blurred along
  const Lanes spread_[3] = {strip(), strip(), strip()};  // derivatives by x, xx, xy, blurred back across
  float* const values_ = arena_.row(kLanes);
};

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
