#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

enum class Border : int { valid, zero, reflect };

// The first three are those of DType. The CPU alone takes float64, and makes no gradient of it.
enum class ImageType : int { float32, float16, bfloat16, uint8, uint16, float64 };

constexpr double kSsimK1 = 0.01;
constexpr double kSsimK2 = 0.03;

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
  FIELD(const void*, y)      /* of the shape and type of x */                                   \
  FIELD(ImageType, type)                                                                        \
  FIELD(int64_t, images)                                                                        \
  FIELD(int64_t, channels)                                                                      \
  FIELD(int64_t, height)                                                                        \
  FIELD(int64_t, width)                                                                         \
  FIELD(PlaneStrides, x_strides)                                                                \
  FIELD(PlaneStrides, y_strides)                                                                \
  FIELD(const float*, weights)  /* [images, channels, down, across], a factor for each position, or null */ \
  FIELD(PlaneStrides, weights_strides)                                                          \
  FIELD(const double*, totals)  /* [images]: the sums of the weights. Null: nothing is divided by them */ \
  FIELD(int64_t, window)     /* odd, at most min(height, width) */                              \
  FIELD(double, sigma)                                                                          \
  FIELD(Border, border)                                                                         \
  FIELD(double, data_range)                                                                     \
  FIELD(bool, structure)     /* the factor of the structure alone, without the luminance's */   \
  FIELD(bool, exact)         /* values and map are float64. The CPU alone can do this */        \
  FIELD(void*, values)       /* [images]: the mean over channels and positions, or null */      \
  FIELD(void*, map)          /* [images, channels, down, across]: the similarity, or null */    \
  FIELD(float*, grad_x)      /* [images, channels, height, width] contiguous: d values[image] / d x, or null */ \
  FIELD(float*, grad_y)      /* likewise */                                                     \
  FIELD(float*, workspace)
// clang-format on

SAL_FAST_LAUNCHER(ssim, SsimArgs, SAL_FAST_SSIM)

}  // namespace sal_fast
