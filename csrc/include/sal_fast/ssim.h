// SSIM of one position from its window's moments, and its derivatives. Templates over T: `float` in a CUDA
// thread, a vector of lanes in a CPU kernel. Derivation: sal_fast/ops/ssim/README.md.
#pragma once

#include "sal_fast/launch/ssim.h"
#include "sal_fast/math.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

// What both images are shifted by before their moments are taken, and the constants of the formula.
struct SsimConstants {
  float shift;
  float c1;
  float c2;
};

// Half the range: E[x^2] - E[x]^2 then cancels a quarter of the digits that it would.
inline SsimConstants ssim_constants(double data_range, double shift) {
  const double k1 = kSsimK1 * data_range, k2 = kSsimK2 * data_range;
  return {static_cast<float>(shift), static_cast<float>(k1 * k1), static_cast<float>(k2 * k2)};
}

// Means of x - shift, y - shift and of their products, under the window.
template <typename T>
struct SsimMoments {
  T x, y, xx, yy, xy;
};

// S, and its derivatives with respect to the moments; that with respect to yy is that to xx.
template <typename T>
struct SsimTerms {
  T value, x, y, xx, xy;
};

template <typename T>
SAL_FAST_HD inline SsimTerms<T> ssim_terms(const SsimMoments<T>& m, const SsimConstants& c) {
  const T mean_x = m.x + c.shift;
  const T mean_y = m.y + c.shift;
  // Rounding may leave a variance below 0, and with it S above 1.
  const T variance_x = larger(m.xx - m.x * m.x, T{});
  const T variance_y = larger(m.yy - m.y * m.y, T{});
  const T covariance = m.xy - m.x * m.y;
  const T a1 = 2.0f * mean_x * mean_y + c.c1;
  const T a2 = 2.0f * covariance + c.c2;
  const T b1 = mean_x * mean_x + mean_y * mean_y + c.c1;
  const T b2 = variance_x + variance_y + c.c2;
  const T inverse = 1.0f / (b1 * b2);
  SsimTerms<T> s;
  s.value = a1 * a2 * inverse;
  s.xx = -s.value * (b1 * inverse);
  s.xy = 2.0f * a1 * inverse;
  // By the luminance, and by the variance and covariance that the mean is subtracted from.
  const T luminance = 2.0f * a2 * inverse;
  const T decay = 2.0f * s.value * (b2 * inverse);
  s.x = luminance * mean_y - decay * mean_x - 2.0f * m.x * s.xx - m.y * s.xy;
  s.y = luminance * mean_x - decay * mean_y - 2.0f * m.y * s.xx - m.x * s.xy;
  return s;
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
