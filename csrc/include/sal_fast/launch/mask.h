#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

// bytes: bool. bits: 32-bit words, the lowest bit first, whole words a row; those past the width are not
// looked at.
enum class MaskType : int { bytes, bits };

// Binary masks [images, height, width].
struct Mask {
  const void* data;
  MaskType type;
  int64_t height;
  int64_t width;
  int64_t image_stride;  // in bytes, or in words of bits
  int64_t row_stride;
  int64_t column_stride;  // 1 for bits
};

}  // namespace sal_fast
