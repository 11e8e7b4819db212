#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

// clang-format off
#define SAL_FAST_MAPS(FIELD)                                                   \
  FIELD(const void*, maps)  /* [count, size] contiguous */                     \
  FIELD(DType, dtype)                                                          \
  FIELD(int64_t, count)                                                        \
  FIELD(int64_t, size)

#define SAL_FAST_MINMAX_NORMALIZE(FIELD)                                       \
  SAL_FAST_MAPS(FIELD)                                                         \
  FIELD(float*, out)  /* [count, size] */

#define SAL_FAST_MINMAX_NORMALIZE_BACKWARD(FIELD)                              \
  SAL_FAST_MAPS(FIELD)                                                         \
  FIELD(const float*, upstream)  /* [count, size] contiguous */                \
  FIELD(void*, grad)             /* [count, size], of the maps' dtype */
// clang-format on

SAL_FAST_LAUNCHER(minmax_normalize, MinmaxNormalizeArgs, SAL_FAST_MINMAX_NORMALIZE)
SAL_FAST_LAUNCHER(minmax_normalize_backward, MinmaxNormalizeBackwardArgs, SAL_FAST_MINMAX_NORMALIZE_BACKWARD)

}  // namespace sal_fast
