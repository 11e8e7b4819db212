#pragma once

#include "sal_fast/launch/ssim.h"

namespace sal_fast {

enum class SaliencyKind : int { ssim_l1, mse };

// The first three as DType. bytes: uint8 or bool. bits: 32-bit words, the lowest bit first, whole words a
// row.
enum class TargetType : int { float32, float16, bfloat16, bytes, bits };

// What saliency_loss_cuda can take: no window larger, no side of CAM, target or loss beyond kMostSide.
constexpr int64_t kSaliencyMostWindow = 33;

struct SaliencyLossArgs {
  const void* cam;  // [images, cam_height, cam_width] contiguous
  DType dtype;
  int64_t images;
  int64_t cam_height;
  int64_t cam_width;
  const void* target;  // [images, target_height, target_width]; strides in elements, of words for bits
  TargetType target_type;
  int64_t target_height;
  int64_t target_width;
  int64_t target_image_stride;
  int64_t target_row_stride;
  int64_t target_column_stride;  // 1 for bits
  const bool* has_map;           // [images], or null: all have one
  int64_t height;                // the resolution of the loss: the CAM's own, or larger
  int64_t width;
  int64_t window;
  double sigma;
  Border border;
  SaliencyKind kind;
  double weight;     // of a value in what is differentiated: 1 / images for their mean
  float* values;     // [images]
  float* grad;       // [images, cam_height, cam_width]: weight d values[image] / d cam, or null
  float* workspace;  // on the device, saliency_loss_workspace() floats; the CPU needs none
};

void saliency_loss_cpu(const SaliencyLossArgs& args, int threads);
int saliency_loss_cuda(const SaliencyLossArgs& args, void* stream);

// Floats of workspace that saliency_loss_cuda needs.
int64_t saliency_loss_workspace(const SaliencyLossArgs& args);

}  // namespace sal_fast
