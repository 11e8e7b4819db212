#pragma once

#include "sal_fast/launch/ssim.h"

namespace sal_fast {

enum class SaliencyKind : int { ssim_l1, mse };

// The first three are those of DType. bytes: uint8 or bool. bits: 32-bit words, the lowest bit first; a row
// is a whole number of words.
enum class TargetType : int { float32, float16, bfloat16, bytes, bits };

// The largest window that saliency_loss_cuda takes. No side of a CAM, a target or the loss may be longer than
// kMostSide, on either device.
constexpr int64_t kSaliencyMostWindow = 33;

// clang-format off
// The human maps, and how CAMs are compared with them.
#define SAL_FAST_SALIENCY_TARGET(FIELD)                                                         \
  FIELD(const void*, target) /* [images, target_height, target_width]; strides of bits count words */ \
  FIELD(TargetType, target_type)                                                                \
  FIELD(int64_t, target_height)                                                                 \
  FIELD(int64_t, target_width)                                                                  \
  FIELD(int64_t, target_image_stride)                                                           \
  FIELD(int64_t, target_row_stride)                                                             \
  FIELD(int64_t, target_column_stride)  /* 1 for bits */                                        \
  FIELD(const bool*, has_map)  /* [images], or null: every image has a map */                   \
  FIELD(int64_t, height)       /* the resolution of the loss; on CUDA no side is below the CAM's */ \
  FIELD(int64_t, width)                                                                         \
  FIELD(int64_t, window)                                                                        \
  FIELD(double, sigma)                                                                          \
  FIELD(Border, border)                                                                         \
  FIELD(SaliencyKind, kind)

#define SAL_FAST_SALIENCY_LOSS(FIELD)                                                           \
  FIELD(const void*, cam)    /* [images, cam_height, cam_width] contiguous */                   \
  FIELD(DType, dtype)                                                                           \
  FIELD(int64_t, images)                                                                        \
  FIELD(int64_t, cam_height)                                                                    \
  FIELD(int64_t, cam_width)                                                                     \
  SAL_FAST_SALIENCY_TARGET(FIELD)                                                               \
  FIELD(double, weight)      /* of one value in the result: 1 / images for the mean */          \
  FIELD(float*, values)      /* [images], or null on the CPU */                                 \
  FIELD(float*, total)       /* [1]: weight times the sum of the values, or null; null on CUDA */ \
  FIELD(float*, grad)        /* [images, cam_height, cam_width]: weight d values[image] / d cam, or null */ \
  FIELD(float*, workspace)
// clang-format on

SAL_FAST_LAUNCHER(saliency_loss, SaliencyLossArgs, SAL_FAST_SALIENCY_LOSS)

}  // namespace sal_fast
