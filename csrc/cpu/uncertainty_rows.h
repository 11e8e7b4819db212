// The rows [begin, end) of an op, on one thread. Defined once per instruction set by uncertainty_rows.cpp.
#pragma once

#include "sal_fast/launch.h"

#define SAL_FAST_DECLARE_ROWS(isa)                                                                        \
  namespace isa {                                                                                         \
  void uncertainty_forward_rows(const Logits& logits, Kind kind, float* out, int64_t begin, int64_t end); \
  void uncertainty_backward_rows(const Logits& logits, Kind kind, const float* upstream,                  \
                                 int64_t upstream_stride, void* grad, int64_t begin, int64_t end);        \
  }

namespace sal_fast {
SAL_FAST_DECLARE_ROWS(generic)
SAL_FAST_DECLARE_ROWS(avx2)
SAL_FAST_DECLARE_ROWS(avx512)
}  // namespace sal_fast
