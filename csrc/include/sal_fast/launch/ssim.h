#pragma once

#include "sal_fast/launch.h"

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

}  // namespace sal_fast
