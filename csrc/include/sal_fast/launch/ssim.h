#pragma once

#include "sal_fast/launch.h"
#include "sal_fast/math.h"

namespace sal_fast {

enum class Border : int { valid, zero, reflect };

constexpr float kSsimK1 = 0.01f;
constexpr float kSsimK2 = 0.03f;

// The longest window of ssim_cuda: its taps are arguments of the kernels.
constexpr int64_t kSsimMostWindow = 511;

// Strides of a [images, channels, height, width] tensor.
struct PlaneStrides {
  int64_t image;
  int64_t channel;
  int64_t row;
  int64_t column;
};

struct SsimArgs {
  const void* x;
  const void* y;  // of the shape and dtype of x
  DType dtype;
  int64_t images;
  int64_t channels;
  int64_t height;
  int64_t width;
  PlaneStrides x_strides;
  PlaneStrides y_strides;
  int64_t window;  // odd, at most min(height, width)
  double sigma;
  Border border;
  double data_range;
  float* values;     // [images]: the mean over channels and positions
  float* grad_x;     // [images, channels, height, width] contiguous: d values[image] / d x, or null
  float* grad_y;     // likewise
  float* workspace;  // on the device, ssim_workspace() floats; the CPU needs none
};

// Positions of the window along a side.
SAL_FAST_HD inline int64_t ssim_positions(int64_t side, int64_t window, Border border) {
  return border == Border::valid ? side - window + 1 : side;
}

void ssim_cpu(const SsimArgs& args, int threads);
int ssim_cuda(const SsimArgs& args, void* stream);

// Floats of workspace that ssim_cuda needs.
int64_t ssim_workspace(const SsimArgs& args);

}  // namespace sal_fast
