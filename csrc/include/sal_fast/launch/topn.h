#pragma once

#include "sal_fast/launch/mask.h"

namespace sal_fast {

// clang-format off
#define SAL_FAST_TOPN_MASK(FIELD)                                                                             \
  FIELD(const void*, maps)       /* [images, height, width], fewer than 2^31 pixels an image */               \
  FIELD(DType, dtype)                                                                                         \
  FIELD(int64_t, images)                                                                                      \
  FIELD(int64_t, height)                                                                                      \
  FIELD(int64_t, width)                                                                                       \
  FIELD(int64_t, image_stride)                                                                                \
  FIELD(int64_t, row_stride)                                                                                  \
  FIELD(int64_t, column_stride)                                                                               \
  FIELD(const int64_t*, counts)  /* how many pixels of each image, or null: `count` */                        \
  FIELD(int64_t, counts_stride)                                                                               \
  FIELD(int64_t, count)                                                                                       \
  FIELD(MaskType, out_type)                                                                                   \
  FIELD(void*, out)    /* [images, height, width] bytes, or [images, height, ceil(width / 32)] words; contiguous */ \
  FIELD(bool*, valid)  /* [images]: false for a map with NaN or a count out of range, where nothing is set */

#define SAL_FAST_TOPN_DICE(FIELD)                                                                             \
  FIELD(const void*, cam)  /* [images, cam_height, cam_width] contiguous, no side longer than kMostSide */    \
  FIELD(DType, dtype)                                                                                         \
  FIELD(int64_t, images)                                                                                      \
  FIELD(int64_t, cam_height)                                                                                  \
  FIELD(int64_t, cam_width)                                                                                   \
  FIELD(Mask, mask)        /* of any size; read by nearest */                                                 \
  FIELD(int64_t, height)   /* the size at which pixels are counted, no side longer than kMostSide */          \
  FIELD(int64_t, width)                                                                                       \
  FIELD(double, empty)     /* the Dice of an image whose mask is empty */                                     \
  FIELD(float*, dice)      /* [images]; NaN for a CAM with a cell beyond kLargestCell of topn.h */            \
  FIELD(int64_t*, hits)    /* [images]; 0 for such a CAM */                                                   \
  FIELD(int64_t*, n)       /* [images] */
// clang-format on

SAL_FAST_LAUNCHER(topn_mask, TopnMaskArgs, SAL_FAST_TOPN_MASK)
SAL_FAST_LAUNCHER(topn_dice, TopnDiceArgs, SAL_FAST_TOPN_DICE)

}  // namespace sal_fast
