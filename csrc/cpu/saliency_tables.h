// These tables of the saliency loss depend on its sizes alone. They are compiled once for all instruction
// sets.
#pragma once

#include <vector>

#include "sal_fast/launch/saliency_loss.h"
#include "sal_fast/ssim.h"

namespace sal_fast {

// A matrix with few non-zeros in each row, which are next to each other. Row r has count[r] of them, the
// values coefficients[r * width ..], from column first[r] on.
struct Banded {
  std::vector<float> coefficients;
  std::vector<int32_t> first, count;
  int64_t width = 1;
};

// The bilinear enlargement: a row (column) of the map is `weight` of the CAM's row `from`, and 1 - weight of
// the next, which is `from` itself if there is one row.
struct Source {
  int32_t from, next;
  float weight;
};

struct SaliencyTables {
  explicit SaliencyTables(const SaliencyLossArgs& args);
  std::vector<float> taps;  // [window]
  std::vector<Source> rows, columns;
  Banded mean;    // a position's mean as a sum over the CAM's rows
  Banded square;  // its mean of squares as a sum over products of the CAM's rows: i i, i (i + 1), (i + 1) (i
                  // + 1) ..
};

// The number of rows that the tables combine: the CAM's, and one of zeros if the border is padded with zeros.
inline int64_t cam_lines(const SaliencyLossArgs& args) {
  return args.cam_height + (args.border == Border::zero ? 1 : 0);
}

}  // namespace sal_fast
