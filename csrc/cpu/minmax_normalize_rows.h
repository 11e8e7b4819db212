// The maps [begin, end) of an op, on one thread. Defined once per instruction set by
// minmax_normalize_rows.cpp.
#pragma once

#include "sal_fast/launch/minmax_normalize.h"

#define SAL_FAST_DECLARE_MINMAX(isa)                                                                        \
  namespace isa {                                                                                           \
  void minmax_normalize_rows(const MinmaxNormalizeArgs& args, int64_t begin, int64_t end);                  \
  void minmax_normalize_backward_rows(const MinmaxNormalizeBackwardArgs& args, int64_t begin, int64_t end); \
  }

namespace sal_fast {
SAL_FAST_DECLARE_MINMAX(generic)
SAL_FAST_DECLARE_MINMAX(avx2)
SAL_FAST_DECLARE_MINMAX(avx512)
}  // namespace sal_fast
