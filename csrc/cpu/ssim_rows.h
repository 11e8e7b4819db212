// The functions that ssim_rows.cpp defines, once per instruction set, for a band of one plane on one thread.
#pragma once

#include "capability.h"
#include "sal_fast/launch/ssim.h"
#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

// A plane is cut into bands of equal height, of at least 256 padded rows and 4 windows. Their number does not
// depend on the number of threads, and so neither do the sums.
inline int64_t ssim_bands(const SsimArgs& args) {
  const int64_t padded = args.height + 2 * padding(args.window, args.border);
  const int64_t least = 4 * args.window > 256 ? 4 * args.window : 256;
  return padded < 2 * least ? 1 : padded / least;
}

}  // namespace SAL_FAST_ISA

// The sum of S over the positions of a band; its gradients are written.
SAL_FAST_DECLARE(double ssim_band(const SsimArgs& args, const float* taps, int64_t plane, int64_t band,
                                  float* scratch))
// Floats of scratch, to be aligned to 64 bytes.
SAL_FAST_DECLARE(int64_t ssim_scratch(const SsimArgs& args))

}  // namespace sal_fast
