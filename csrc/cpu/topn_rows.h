// The images [begin, end) of an op, on one thread. Defined once per instruction set by topn_rows.cpp.
#pragma once

#include "sal_fast/launch/topn.h"

namespace sal_fast {

// What the enlargement needs of every image.
struct TopnTables {
  const float* weights;  // of each column, with room for a vector behind
  const int32_t* first;  // the first column of each cell, and the end behind
};

#define SAL_FAST_DECLARE_TOPN(isa)                                                                    \
  namespace isa {                                                                                     \
  int64_t topn_memory(int64_t width, int64_t cam_height, int64_t cam_width);                          \
  void topn_mask_rows(const TopnMaskArgs& args, int64_t begin, int64_t end, uint32_t* memory);        \
  void topn_dice_rows(const TopnDiceArgs& args, const TopnTables& tables, int64_t begin, int64_t end, \
                      uint32_t* memory);                                                              \
  }

// topn_memory: the words of memory of one thread; cam_height and cam_width are 0 for topn_mask_rows.
SAL_FAST_DECLARE_TOPN(generic)
SAL_FAST_DECLARE_TOPN(avx2)
SAL_FAST_DECLARE_TOPN(avx512)

}  // namespace sal_fast
