// The window of ssim and saliency_loss, and where it looks.
#pragma once

#include "sal_fast/launch/ssim.h"
#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

// The image's row that stands at a padded row, or -1 for none.
inline int64_t source_of(int64_t padded, int64_t length, int64_t pad, Border border) {
  const int64_t i = padded - pad;
  if (i >= 0 && i < length) return i;
  if (border == Border::zero) return -1;
  return i < 0 ? -i : 2 * (length - 1) - i;
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
