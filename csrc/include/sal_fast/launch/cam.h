#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

enum class Probe : int { cam, gradcam, gradcampp, hirescam };

// The axis of an image that is contiguous: nchw is a matrix [channels, pixels], nhwc is [pixels, channels].
enum class Layout : int { nchw, nhwc };

// clang-format off
#define SAL_FAST_CAM_INPUTS(FIELD)                                                              \
  FIELD(const void*, features)    /* each image is a matrix with contiguous rows, see Layout */ \
  FIELD(DType, dtype)                                                                           \
  FIELD(int64_t, images)                                                                        \
  FIELD(int64_t, channels)                                                                      \
  FIELD(int64_t, pixels)                                                                        \
  FIELD(Layout, layout)                                                                         \
  FIELD(int64_t, image_stride)                                                                  \
  FIELD(int64_t, row_stride)      /* at least the length of a row */                            \
  FIELD(const void*, weight)      /* [classes, channels] contiguous */                          \
  FIELD(DType, weight_dtype)                                                                    \
  FIELD(int64_t, classes)                                                                       \
  FIELD(const int64_t*, target)   /* [images]; a class out of range makes its map NaN */        \
  FIELD(Probe, probe)

#define SAL_FAST_CAM(FIELD)                                                                     \
  SAL_FAST_CAM_INPUTS(FIELD)                                                                    \
  FIELD(const float*, known_pooled)  /* [images, channels]: for gradcampp where pooled is null */ \
  FIELD(float*, pooled)              /* [images, channels], or null: not wanted */              \
  FIELD(float*, cam)       /* [images, pixels], or null: not wanted, and neither are weight and target */ \
  FIELD(float*, workspace)

#define SAL_FAST_CAM_BACKWARD(FIELD)                                                            \
  SAL_FAST_CAM_INPUTS(FIELD)                                                                    \
  FIELD(const float*, pooled)       /* [images, channels] */                                    \
  FIELD(const float*, cam)          /* [images, pixels]: what the forward gave */               \
  FIELD(const float*, grad_cam)     /* [images, pixels], or null: 0 */                          \
  FIELD(const float*, grad_pooled)  /* [images, channels], or null: 0 */                        \
  FIELD(void*, grad_features)       /* of the features' dtype, dense in their layout, or null: not wanted */ \
  FIELD(float*, grad_weight)        /* [classes, channels], added to, or null: not wanted */    \
  FIELD(float*, workspace)
// clang-format on

SAL_FAST_LAUNCHER(cam, CamArgs, SAL_FAST_CAM)
SAL_FAST_LAUNCHER(cam_backward, CamBackwardArgs, SAL_FAST_CAM_BACKWARD)

// The backward reads the features for these two results alone: grad_features is a sum of two outer products.
inline bool cam_backward_reads(const CamBackwardArgs& args) {
  return args.grad_cam && (args.grad_weight || (args.grad_features && args.probe == Probe::gradcampp));
}

}  // namespace sal_fast
