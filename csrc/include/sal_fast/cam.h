// The weight of a channel in a class activation map, and its derivatives. A CUDA thread does one channel, a
// CPU kernel a vector of them. Derivation: sal_fast/ops/cam/README.md.
#pragma once

#include "sal_fast/launch/cam.h"
#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

constexpr float kCamGuard = 1e-3f;  // gradcam++'s denominator stays this far from 0

template <typename T>
struct ChannelWeight {
  T value;
  T by_weight;  // d value / d w
  T by_pooled;  // d value / d pooled
};

// `w` is the class's weight of the channel, `pooled` the channel's mean (looked at by gradcampp alone). A NaN
// weight gives NaN.
template <typename T>
SAL_FAST_HD inline ChannelWeight<T> channel_weight(T w, T pooled, Probe probe, int64_t pixels) {
  if (probe != Probe::gradcampp) {
    const T area = T{} + (probe == Probe::cam ? 1.0f : static_cast<float>(pixels));
    return {w / area, 1.0f / area, T{}};
  }
  // relu(g) hw / (2 + S g) with g = w / hw and S = hw pooled.
  const T denominator = 2.0f + pooled * w;
  const auto near_zero = (denominator < T{} + kCamGuard) & (denominator > T{} - kCamGuard);
  const T guard = denominator < T{} ? T{} - kCamGuard : T{} + kCamGuard;
  const T divisor = near_zero ? guard : denominator;
  const T value = w / divisor;
  const T by_weight = near_zero ? 1.0f / divisor : 2.0f / divisor / divisor;
  const T by_pooled = near_zero ? T{} : -value * value;
  const auto positive = w > T{};
  const T none = w == w ? T{} : w;
  return {positive ? value : none, positive ? by_weight : none, positive ? by_pooled : none};
}

SAL_FAST_HD inline bool has_relu(Probe probe) {
  return probe == Probe::gradcam || probe == Probe::gradcampp;
}

// The value of a map, from the weighted sum of the channels. NaN stays NaN.
SAL_FAST_HD inline float map_value(float sum, Probe probe) {
  return has_relu(probe) && sum < 0.0f ? 0.0f : sum;
}

// The gradient to that sum; relu'(0) = 0.
SAL_FAST_HD inline float sum_gradient(float upstream, float value, Probe probe) {
  return has_relu(probe) && value <= 0.0f ? 0.0f : upstream;
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
