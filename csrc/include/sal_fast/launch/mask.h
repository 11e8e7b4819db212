#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

// bytes: bool. bits: 32-bit words, the lowest bit first; a row is a whole number of words, and the bits past
// the width are never looked at.
enum class MaskType : int { bytes, bits };

// clang-format off
#define SAL_FAST_MASK(FIELD)                                                   \
  FIELD(const void*, data)                                                     \
  FIELD(MaskType, type)                                                        \
  FIELD(int64_t, height)                                                       \
  FIELD(int64_t, width)                                                        \
  FIELD(int64_t, image_stride)   /* in bytes, or in words of bits */           \
  FIELD(int64_t, row_stride)                                                   \
  FIELD(int64_t, column_stride)  /* 1 for bits */
// clang-format on

// Binary masks [images, height, width].
SAL_FAST_STRUCT(Mask, SAL_FAST_MASK)

}  // namespace sal_fast
