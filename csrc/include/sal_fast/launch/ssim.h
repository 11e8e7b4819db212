#pragma once

#include "sal_fast/launch.h"
#include "sal_fast/math.h"

namespace sal_fast {

enum class Border : int { valid, zero, reflect };

constexpr float kSsimK1 = 0.01f;
constexpr float kSsimK2 = 0.03f;

// The longest window that ssim_cuda takes: its taps are arguments of the kernels.
constexpr int64_t kSsimMostWindow = 511;

// clang-format off
#define SAL_FAST_PLANE_STRIDES(FIELD)                                          \
  FIELD(int64_t, image)                                                        \
  FIELD(int64_t, channel)                                                      \
  FIELD(int64_t, row)                                                          \
  FIELD(int64_t, column)

// Strides of a [images, channels, height, width] tensor.
SAL_FAST_STRUCT(PlaneStrides, SAL_FAST_PLANE_STRIDES)

#define SAL_FAST_SSIM(FIELD)                                                                    \
  FIELD(const void*, x)                                                                         \
  FIELD(const void*, y)      /* of the shape and dtype of x */                                  \
  FIELD(DType, dtype)                                                                           \
  FIELD(int64_t, images)                                                                        \
  FIELD(int64_t, channels)                                                                      \
  FIELD(int64_t, height)                                                                        \
  FIELD(int64_t, width)                                                                         \
  FIELD(PlaneStrides, x_strides)                                                                \
  FIELD(PlaneStrides, y_strides)                                                                \
  FIELD(int64_t, window)     /* odd, at most min(height, width) */                              \
  FIELD(double, sigma)                                                                          \
  FIELD(Border, border)                                                                         \
  FIELD(double, data_range)                                                                     \
  FIELD(float*, values)      /* [images]: the mean over channels and positions */               \
  FIELD(float*, grad_x)      /* [images, channels, height, width] contiguous: d values[image] / d x, or null */ \
  FIELD(float*, grad_y)      /* likewise */                                                     \
  FIELD(float*, workspace)
// clang-format on

SAL_FAST_LAUNCHER(ssim, SsimArgs, SAL_FAST_SSIM)

inline namespace SAL_FAST_ISA {

// The samples that the border adds on each side.
SAL_FAST_HD inline int64_t padding(int64_t window, Border border) {
  return border == Border::valid ? 0 : window / 2;
}

// How many positions the window has along a side.
SAL_FAST_HD inline int64_t ssim_positions(int64_t side, int64_t window, Border border) {
  return border == Border::valid ? side - window + 1 : side;
}

}  // namespace SAL_FAST_ISA

}  // namespace sal_fast
