#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

enum class Kind : int { margin, least_confidence, entropy };

// clang-format off
#define SAL_FAST_LOGITS(FIELD)                                                 \
  FIELD(const void*, logits)  /* [rows, columns], each row contiguous */       \
  FIELD(DType, dtype)                                                          \
  FIELD(int64_t, rows)                                                         \
  FIELD(int64_t, columns)                                                      \
  FIELD(int64_t, row_stride)                                                   \
  FIELD(Kind, kind)

#define SAL_FAST_UNCERTAINTY(FIELD)                                            \
  SAL_FAST_LOGITS(FIELD)                                                       \
  FIELD(float*, out)  /* [rows] */

#define SAL_FAST_UNCERTAINTY_BACKWARD(FIELD)                                   \
  SAL_FAST_LOGITS(FIELD)                                                       \
  FIELD(const float*, upstream)    /* [rows] */                                \
  FIELD(int64_t, upstream_stride)  /* 0 for an expanded scalar */              \
  FIELD(void*, grad)               /* [rows, columns] contiguous, of the logits' dtype */
// clang-format on

SAL_FAST_LAUNCHER(uncertainty, UncertaintyArgs, SAL_FAST_UNCERTAINTY)
SAL_FAST_LAUNCHER(uncertainty_backward, UncertaintyBackwardArgs, SAL_FAST_UNCERTAINTY_BACKWARD)

}  // namespace sal_fast
