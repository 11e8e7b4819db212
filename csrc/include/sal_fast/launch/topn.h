#pragma once

#include "sal_fast/launch/mask.h"

namespace sal_fast {

struct TopnMaskArgs {
  const void* maps;  // [images, height, width], fewer than 2^31 pixels an image; strides in elements
  DType dtype;
  int64_t images;
  int64_t height;
  int64_t width;
  int64_t image_stride;
  int64_t row_stride;
  int64_t column_stride;
  const int64_t* counts;  // how many, of each image; or null: `count`
  int64_t counts_stride;
  int64_t count;
  MaskType out_type;
  void* out;    // [images, height, width] bytes, or [images, height, ceil(width / 32)] words; contiguous
  bool* valid;  // [images]: false for a map with NaN or a count out of range; nothing is set then
};

struct TopnDiceArgs {
  const void* cam;  // [images, cam_height, cam_width] contiguous; no side beyond kMostSide
  DType dtype;
  int64_t images;
  int64_t cam_height;
  int64_t cam_width;
  Mask mask;       // of any size; read by nearest
  int64_t height;  // at which pixels are counted; no side beyond kMostSide
  int64_t width;
  double empty;   // the Dice of an image without a pixel in its mask
  float* dice;    // [images]; NaN for a CAM with a cell beyond kLargestCell of topn.h
  int64_t* hits;  // [images]; 0 for such a CAM
  int64_t* n;     // [images]
};

void topn_mask_cpu(const TopnMaskArgs& args, int threads);
int topn_mask_cuda(const TopnMaskArgs& args, void* stream);
void topn_dice_cpu(const TopnDiceArgs& args, int threads);
int topn_dice_cuda(const TopnDiceArgs& args, void* stream);

}  // namespace sal_fast
