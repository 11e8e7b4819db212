#pragma once

#include "sal_fast/launch/mask.h"

namespace sal_fast {

// No side beyond kMostSide. A row out of 0..stored-1, and a box with NaN or an infinity, give NaN, or 0 in
// masks.
struct CropImagesArgs {
  const uint8_t* images;  // [stored, height, width, 3], a row of pixels contiguous
  int64_t stored;
  int64_t height;
  int64_t width;
  int64_t image_stride;
  int64_t row_stride;
  const int64_t* rows;   // [batch], or null: the first, the second, ...
  const float* box;      // [batch, 4]: left, top, right, bottom in 0..1, or null: the whole image
  const float* color;    // [3, 4], of each image
  int64_t color_stride;  // 0: one for all
  int64_t batch;
  int64_t out_height;
  int64_t out_width;
  DType dtype;
  void* out;  // [batch, 3, out_height, out_width] contiguous
};

struct CropMasksArgs {
  Mask masks;  // bytes are copied as they are; bits give 0 or 1. Columns are neighbours
  int64_t stored;
  const int64_t* rows;
  const float* box;
  int64_t batch;
  int64_t out_height;
  int64_t out_width;
  void* out;  // [batch, out_height, out_width] bytes, contiguous
};

void crop_images_cpu(const CropImagesArgs& args, int threads);
int crop_images_cuda(const CropImagesArgs& args, void* stream);
void crop_masks_cpu(const CropMasksArgs& args, int threads);
int crop_masks_cuda(const CropMasksArgs& args, void* stream);

}  // namespace sal_fast
