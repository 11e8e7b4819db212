// The images [begin, end) of an op, on one thread. Defined once per instruction set by cam_rows.cpp.
#pragma once

#include "sal_fast/launch/cam.h"

#define SAL_FAST_DECLARE_CAM(isa)                                                                       \
  namespace isa {                                                                                       \
  void cam_rows(const CamArgs& args, int64_t begin, int64_t end);                                       \
  /* weight_terms: [images, channels], what each image adds to its class's row, or null. */             \
  void cam_backward_rows(const CamBackwardArgs& args, float* weight_terms, int64_t begin, int64_t end); \
  }

namespace sal_fast {
SAL_FAST_DECLARE_CAM(generic)
SAL_FAST_DECLARE_CAM(avx2)
SAL_FAST_DECLARE_CAM(avx512)
}  // namespace sal_fast
