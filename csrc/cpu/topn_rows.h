// The functions that topn_mask_rows.cpp and topn_dice_rows.cpp define, once per instruction set.
#pragma once

#include "capability.h"
#include "sal_fast/launch/topn.h"

namespace sal_fast {

constexpr int64_t kTableSlack = 32;  // weights are loaded by words of pixels

// Tables of the enlargement, which are the same for all images.
struct TopnTables {
  const int32_t* row_cells;  // of each row
  const float* row_weights;
  const float* weights;  // of each column, and kTableSlack behind
  const int32_t* first;  // the first column of each cell, and the end behind
};

// The images [begin, end), on one thread, and the words of memory that it needs.
SAL_FAST_DECLARE(int64_t topn_mask_memory(int64_t width))
SAL_FAST_DECLARE(void topn_mask_rows(const TopnMaskArgs& args, int64_t begin, int64_t end, uint32_t* memory))
SAL_FAST_DECLARE(int64_t topn_dice_memory(const TopnDiceArgs& args))
SAL_FAST_DECLARE(void topn_dice_rows(const TopnDiceArgs& args, const TopnTables& tables, int64_t begin,
                                     int64_t end, uint32_t* memory))

}  // namespace sal_fast
