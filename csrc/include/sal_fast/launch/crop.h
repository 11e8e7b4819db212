#pragma once

#include "sal_fast/launch/mask.h"

namespace sal_fast {

// No side is longer than kMostSide. An image whose row is not in 0..stored-1, or whose box holds NaN or an
// infinity, becomes NaN; a mask becomes 0.

// clang-format off
#define SAL_FAST_CROP(FIELD)                                                           \
  FIELD(int64_t, stored)         /* images */                                          \
  FIELD(const int64_t*, rows)    /* [batch], or null: 0, 1, 2, ... */                  \
  FIELD(const float*, box)       /* [batch, 4]: left, top, right, bottom in 0..1, or null: the whole image */ \
  FIELD(int64_t, batch)                                                                \
  FIELD(int64_t, out_height)                                                           \
  FIELD(int64_t, out_width)

#define SAL_FAST_CROP_IMAGES(FIELD)                                                    \
  SAL_FAST_CROP(FIELD)                                                                 \
  FIELD(const uint8_t*, images)  /* [stored, height, width, 3], each row contiguous */ \
  FIELD(int64_t, height)                                                               \
  FIELD(int64_t, width)                                                                \
  FIELD(int64_t, image_stride)                                                         \
  FIELD(int64_t, row_stride)                                                           \
  FIELD(const float*, color)     /* [3, 4], for each image */                          \
  FIELD(int64_t, color_stride)   /* 0: one for all images */                           \
  FIELD(DType, dtype)                                                                  \
  FIELD(void*, out)              /* [batch, 3, out_height, out_width] contiguous */

#define SAL_FAST_CROP_MASKS(FIELD)                                                     \
  SAL_FAST_CROP(FIELD)                                                                 \
  FIELD(Mask, masks)  /* column stride 1. Bytes are copied as they are, bits give 0 or 1 */ \
  FIELD(void*, out)   /* [batch, out_height, out_width] bytes, contiguous */
// clang-format on

SAL_FAST_LAUNCHER(crop_images, CropImagesArgs, SAL_FAST_CROP_IMAGES)
SAL_FAST_LAUNCHER(crop_masks, CropMasksArgs, SAL_FAST_CROP_MASKS)

}  // namespace sal_fast
