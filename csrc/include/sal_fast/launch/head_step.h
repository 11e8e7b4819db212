#pragma once

#include "sal_fast/launch/cam.h"
#include "sal_fast/launch/saliency_loss.h"

namespace sal_fast {

// The class whose map is compared: the image's label, or the class that the head predicts.
enum class CamClass : int { labelled, predicted };

// The most pixels, height * width, of an image's features.
constexpr int64_t kHeadStepMostPixels = 1024;

// All arrays by image hold the stored images, and `rows` chooses the images of the batch. A row or a label
// that is out of range makes everything that depends on it NaN.
// clang-format off
#define SAL_FAST_HEAD_STEP(FIELD)                                                               \
  FIELD(const void*, features)       /* [stored, height, width, channels] contiguous */         \
  FIELD(DType, dtype)                                                                           \
  FIELD(int64_t, stored)                                                                        \
  FIELD(int64_t, channels)                                                                      \
  FIELD(const int64_t*, labels)      /* [stored] */                                             \
  SAL_FAST_SALIENCY_TARGET(FIELD)    /* of the stored; target null: no image has a map */       \
  FIELD(const int64_t*, rows)        /* [images], or null: the stored images in their order */  \
  FIELD(int64_t, images)                                                                        \
  FIELD(const float*, weight)        /* [heads, classes, channels] contiguous */                \
  FIELD(const float*, bias)          /* [heads, classes] contiguous */                          \
  FIELD(int64_t, heads)                                                                         \
  FIELD(int64_t, classes)                                                                       \
  FIELD(const float*, alpha)         /* [heads] */                                              \
  FIELD(const float*, class_weight)  /* [classes], or null: ones */                             \
  FIELD(double, label_smoothing)                                                                \
  FIELD(Probe, probe)                                                                           \
  FIELD(CamClass, cam_class)                                                                    \
  FIELD(float*, loss)                /* [heads] */                                              \
  FIELD(float*, logits)              /* [heads, images, classes] */                             \
  FIELD(float*, cam)                 /* [heads, images, height, width] */                       \
  FIELD(float*, grad_weight)         /* [heads, classes, channels] */                           \
  FIELD(float*, grad_bias)           /* [heads, classes] */                                     \
  FIELD(float*, workspace)
// clang-format on

SAL_FAST_LAUNCHER(head_step, HeadStepArgs, SAL_FAST_HEAD_STEP)

}  // namespace sal_fast
