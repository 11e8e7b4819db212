// The similarity of two windows from their moments, and its derivatives. Templates over T: `float` in a CUDA
// thread, a vector of lanes in a CPU kernel.
//
// The moments are those of x - L/2 and y - L/2 (L the data range; for border `zero`, of an image padded with
// -L/2): variances are differences of moments, and cancel less the closer the values are to 0.
#pragma once

#include "sal_fast/launch/ssim.h"
#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

// The samples that the border adds on each side.
SAL_FAST_HD inline int64_t padding(int64_t window, Border border) {
  return border == Border::valid ? 0 : window / 2;
}

// How many positions the window has along a side.
SAL_FAST_HD inline int64_t ssim_positions(int64_t side, int64_t window, Border border) {
  return border == Border::valid ? side - window + 1 : side;
}

struct SsimConstants {
  float c1;
  float c2;
  float shift;  // L/2
};

// A window of one sample has no variances. A large C2 makes nothing of what rounding leaves of them.
inline SsimConstants ssim_constants(double data_range, int64_t window) {
  const double root1 = kSsimK1 * data_range, root2 = (window == 1 ? 100.0 : kSsimK2) * data_range;
  return {static_cast<float>(root1 * root1), static_cast<float>(root2 * root2),
          static_cast<float>(data_range / 2)};
}

// The normalised Gaussian, [window].
inline void gaussian_taps(int64_t window, double sigma, double* taps) {
  double sum = 0;
  for (int64_t i = 0; i < window; ++i) {
    const double offset = static_cast<double>(i - window / 2);
    sum += taps[i] = std::exp(-offset * offset / (2 * sigma * sigma));
  }
  for (int64_t i = 0; i < window; ++i) taps[i] /= sum;
}

// The normalised Gaussian, [window], rounded to multiples of 2^-24 that sum to exactly 1: on a flat window of
// 0 or 1 every partial sum is exact, in any order, and the variance exactly 0.
inline void gaussian_taps(int64_t window, double sigma, float* taps) {
  const int64_t half = window / 2;
  const auto sample = [=](int64_t i) {
    const double offset = static_cast<double>(i - half);
    return std::exp(-offset * offset / (2 * sigma * sigma));
  };
  double sum = 0;
  for (int64_t i = 0; i < window; ++i) sum += sample(i);
  constexpr double kParts = 1 << 24;
  double before = 0, rounded = 0;  // cumulative, so that roundings do not add up
  for (int64_t i = 0; i < half; ++i) {
    before += sample(i) / sum * kParts;
    taps[i] = taps[window - 1 - i] = static_cast<float>((std::round(before) - rounded) / kParts);
    rounded = std::round(before);
  }
  taps[half] = static_cast<float>((kParts - 2 * rounded) / kParts);
}

// The sample of a side of `length` that stands at index i of the padded side, or -1 for none (a zero, or
// beyond the padding). `pad` is half the window, and less than the length.
template <typename Index>
SAL_FAST_HD inline Index padded_index(Index i, Index length, Index pad, Border border) {
  if (border == Border::reflect) {
    if (i < 0 && i >= -pad) return -i;
    if (i >= length && i < length + pad) return 2 * (length - 1) - i;
  }
  return i >= 0 && i < length ? i : -1;
}

// With reflection the transpose of a blur along a side is the blur itself between two scalings: by 2 at both
// ends before, by 1/2 there after. (A sample not at an end reaches a window also through its mirror image.)
template <typename Index>
SAL_FAST_HD inline float end_weight(Index i, Index length, Border border, float weight) {
  return border == Border::reflect && (i == 0 || i == length - 1) ? weight : 1.0f;
}

// Weighted means over a window of x, y, xx, yy, xy, all shifted.
template <typename T>
struct SsimMoments {
  T x;
  T y;
  T xx;
  T yy;
  T xy;
};

// Derivatives with respect to the moments. Those of xx and yy are equal.
template <typename T>
struct SsimSlopes {
  T x;
  T y;
  T square;
  T cross;
};

template <typename T>
struct SsimTerms {
  T mean_x;
  T mean_y;
  T luminance_over;   // 2 mx my + C1
  T luminance_under;  // mx^2 + my^2 + C1
  T structure_over;   // 2 sxy + C2
  T structure_under;  // sxx + syy + C2
};

// Rounding leaves variances below 0, and covariances above what variances allow, on flat windows: both are
// clamped, so that the similarity stays within [-1, 1]. NaN stays NaN.
template <typename T>
SAL_FAST_HD inline SsimTerms<T> ssim_terms(const SsimMoments<T>& m, const SsimConstants& c) {
  const T variances = larger(T{}, m.xx - m.x * m.x) + larger(T{}, m.yy - m.y * m.y);
  const T covariance = larger(variances * -0.5f, smaller(variances * 0.5f, m.xy - m.x * m.y));
  const T x = m.x + c.shift, y = m.y + c.shift;
  return {x, y, 2.0f * x * y + c.c1, x * x + y * y + c.c1, 2.0f * covariance + c.c2, variances + c.c2};
}

template <typename T>
SAL_FAST_HD inline T ssim_value(const SsimTerms<T>& t) {
  return t.luminance_over * t.structure_over / (t.luminance_under * t.structure_under);
}

// The terms whose similarity is the factor of the structure alone: means of 1 have no slope.
template <typename T>
SAL_FAST_HD inline SsimTerms<T> without_luminance(const SsimTerms<T>& t) {
  const T one = T{} + 1.0f;
  return {one, one, one, one, t.structure_over, t.structure_under};
}

// The slopes of the similarity times `scale`.
template <typename T, typename Scale>
SAL_FAST_HD inline SsimSlopes<T> ssim_slopes(const SsimMoments<T>& m, const SsimTerms<T>& t, Scale scale) {
  const T inverse_luminance = scale / t.luminance_under;
  const T inverse_structure = 1.0f / t.structure_under;
  const T structure = t.structure_over * inverse_structure;
  const T luminance = t.luminance_over * inverse_luminance;
  const T square = -(luminance * structure) * inverse_structure;
  const T cross = 2.0f * luminance * inverse_structure;
  // First the luminance's, then those through the products of means in the variances and the covariance.
  const T ratio = t.luminance_over / t.luminance_under;
  const T common = 2.0f * inverse_luminance * structure;
  return {common * (t.mean_y - ratio * t.mean_x) - 2.0f * square * m.x - cross * m.y,
          common * (t.mean_x - ratio * t.mean_y) - 2.0f * square * m.y - cross * m.x, square, cross};
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
