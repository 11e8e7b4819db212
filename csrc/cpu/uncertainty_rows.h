// The rows [begin, end) of an op, on one thread. Defined once per instruction set by uncertainty_rows.cpp.
#pragma once

#include "sal_fast/launch/uncertainty.h"

#define SAL_FAST_DECLARE_ROWS(isa)                                                                 \
  namespace isa {                                                                                  \
  void uncertainty_rows(const UncertaintyArgs& args, int64_t begin, int64_t end);                  \
  void uncertainty_backward_rows(const UncertaintyBackwardArgs& args, int64_t begin, int64_t end); \
  }

namespace sal_fast {
SAL_FAST_DECLARE_ROWS(generic)
SAL_FAST_DECLARE_ROWS(avx2)
SAL_FAST_DECLARE_ROWS(avx512)
}  // namespace sal_fast
