// The functions that saliency_loss_rows.cpp defines, once per instruction set.
#pragma once

#include "capability.h"
#include "sal_fast/launch/saliency_loss.h"
#include "sal_fast/math.h"

namespace sal_fast {

// A matrix with few non-zeros in each row, which are next to each other. Row r has count[r] of them, the
// values coefficients[r * width ..], from column first[r] on.
struct Banded {
  const float* coefficients;
  const int32_t* first;
  const int32_t* count;
  int64_t width;
};

inline namespace SAL_FAST_ISA {

// Whether the images are so small that each takes a lane. The arrays of larger ones, times the lanes, would
// not fit in the cache.
inline bool saliency_loss_lanes(const SaliencyLossArgs& args) {
  constexpr int64_t kMostPixels = 1024;
  return args.height == args.cam_height && args.width == args.cam_width &&
         args.height * args.width <= kMostPixels;
}

// The number of rows that the tables combine: the CAM's, and one of zeros if the border is padded with zeros.
inline int64_t cam_lines(const SaliencyLossArgs& args) {
  return args.cam_height + (args.border == Border::zero ? 1 : 0);
}

}  // namespace SAL_FAST_ISA

// Tables that depend on the sizes alone.
struct SaliencyTables {
  const float* taps;  // [window]
  // Bilinear enlargement: row (column) i of the map is weight[i] of the CAM's row from[i] and 1 - weight[i]
  // of the next.
  const int32_t* row_from;
  const float* row_weight;
  const int32_t* column_from;
  const float* column_weight;
  Banded mean;    // a position's mean as a sum over the CAM's rows
  Banded square;  // its mean of squares as a sum over products of the CAM's rows: i i, i (i + 1), (i + 1) (i
                  // + 1) ..
};

// The images [begin, end), on one thread, and the floats of scratch, which are to be aligned to 64 bytes.
SAL_FAST_DECLARE(void saliency_loss_rows(const SaliencyLossArgs& args, const SaliencyTables& tables,
                                         int64_t begin, int64_t end, float* scratch))
SAL_FAST_DECLARE(int64_t saliency_loss_scratch(const SaliencyLossArgs& args))

}  // namespace sal_fast
