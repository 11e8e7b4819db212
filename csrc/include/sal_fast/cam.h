// The weight of a channel in a class activation map, and its derivatives. Derivation:
// sal_fast/ops/cam/README.md.
#pragma once

#include "sal_fast/launch/cam.h"
#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

constexpr float kCamGuard = 1e-3f;  // gradcam++'s denominator stays this far from 0

struct ChannelWeight {
  float value;
  float by_weight;  // d value / d w
  float by_pooled;  // d value / d pooled
};

// `w` is the class's weight of the channel, `pooled` the channel's mean (looked at by gradcam++ alone).
SAL_FAST_HD inline ChannelWeight channel_weight(float w, float pooled, Probe probe, int64_t pixels) {
  if (probe == Probe::cam) return {w, 1.0f, 0.0f};
  const float area = static_cast<float>(pixels);
  if (probe != Probe::gradcampp) return {w / area, 1.0f / area, 0.0f};
  // relu(g) hw / (2 + S g) with g = w / hw and S = hw pooled.
  if (!(w > 0.0f)) {
    const float none = w == w ? 0.0f : w;  // NaN stays
    return {none, none, none};
  }
  const float denominator = 2.0f + pooled * w;
  if (denominator < kCamGuard && denominator > -kCamGuard) {
    const float kept = denominator < 0.0f ? -kCamGuard : kCamGuard;
    return {w / kept, 1.0f / kept, 0.0f};
  }
  const float value = w / denominator;
  return {value, 2.0f / denominator / denominator, -value * value};
}

SAL_FAST_HD inline bool has_relu(Probe probe) {
  return probe == Probe::gradcam || probe == Probe::gradcampp;
}

// A map's value, from the weighted sum of the channels. NaN stays NaN.
SAL_FAST_HD inline float map_value(float sum, Probe probe) {
  return has_relu(probe) && sum < 0.0f ? 0.0f : sum;
}

// The gradient to that sum; relu'(0) = 0.
SAL_FAST_HD inline float sum_gradient(float upstream, float value, Probe probe) {
  return has_relu(probe) && value <= 0.0f ? 0.0f : upstream;
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
