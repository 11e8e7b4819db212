#include "sal_fast/launch/topn.h"

#include <algorithm>
#include <vector>

#include "capability.h"
#include "parallel.h"
#include "sal_fast/enlarge.h"
#include "scratch.h"
#include "topn_rows.h"

namespace sal_fast {
namespace {

uint32_t* words(const Scratch& scratch) {
  return reinterpret_cast<uint32_t*>(scratch.data());
}

}  // namespace

void topn_mask_cpu(const TopnMaskArgs& args, int threads) {
  const auto run = SAL_FAST_DISPATCH(topn_mask_rows);
  const int64_t memory = SAL_FAST_DISPATCH(topn_mask_memory)(args.width);
  parallel_for(args.images, 4 * args.height * args.width, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(memory);
    run(args, begin, end, words(scratch));
  });
}

void topn_dice_cpu(const TopnDiceArgs& args, int threads) {
  const auto cam_height = static_cast<int>(args.cam_height), height = static_cast<int>(args.height);
  const auto cam_width = static_cast<int>(args.cam_width), width = static_cast<int>(args.width);
  std::vector<int32_t> row_cells(height), first(cam_width + 1);
  std::vector<float> row_weights(height), weights(width + kTableSlack);
  for (int i = 0; i < height; ++i) {
    const Between at = between(i, cam_height, height);
    row_cells[i] = at.cell;
    row_weights[i] = at.weight;
  }
  for (int x = 0; x < width; ++x) weights[x] = between(x, cam_width, width).weight;
  for (int c = 0; c <= cam_width; ++c) first[c] = first_pixel(c, cam_width, width);
  const TopnTables tables{row_cells.data(), row_weights.data(), weights.data(), first.data()};

  const auto run = SAL_FAST_DISPATCH(topn_dice_rows);
  const int64_t memory = SAL_FAST_DISPATCH(topn_dice_memory)(args);
  parallel_for(args.images, 2 * args.height * args.width, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(memory);
    run(args, tables, begin, end, words(scratch));
  });
}

}  // namespace sal_fast
