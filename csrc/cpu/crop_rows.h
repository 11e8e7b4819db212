// The crops [begin, end) of an op, on one thread, and the floats of memory it needs. Defined once per
// instruction set.
#pragma once

#include "sal_fast/launch/crop.h"

#define SAL_FAST_DECLARE_ROWS(isa)                                                              \
  namespace isa {                                                                               \
  int64_t crop_images_memory(const CropImagesArgs& args);                                       \
  void crop_images_rows(const CropImagesArgs& args, int64_t begin, int64_t end, float* memory); \
  int64_t crop_masks_memory(const CropMasksArgs& args);                                         \
  void crop_masks_rows(const CropMasksArgs& args, int64_t begin, int64_t end, float* memory);   \
  }

namespace sal_fast {
SAL_FAST_DECLARE_ROWS(generic)
SAL_FAST_DECLARE_ROWS(avx2)
SAL_FAST_DECLARE_ROWS(avx512)
}  // namespace sal_fast
