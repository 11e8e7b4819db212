// The samples of the saliency loss come from the bilinear enlargement of the CAM (enlarge.h), and from bins
// over which the target is averaged. No side is longer than kMostSide.
#pragma once

#include "sal_fast/enlarge.h"
#include "sal_fast/launch/saliency_loss.h"
#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

// Sample i of `out` averages [begin, end) of `in`, as adaptive_avg_pool2d does.
struct Bin {
  int begin;
  int end;
};

SAL_FAST_HD inline Bin bin_of(int i, int in, int out) {
  return {i * in / out, ((i + 1) * in + out - 1) / out};
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
