// The steps for an image or a pixel that all kernels of the saliency loss share.
#pragma once

#include "block.cuh"
#include "sal_fast/saliency_loss.h"

namespace sal_fast {
namespace {

constexpr int kThreads = 512;  // of the kernels with a block an image

__device__ bool has_map(const SaliencyLossArgs& args, int64_t image) {
  return !args.has_map || args.has_map[image];
}

// Writes the loss and the gradient of an image without a map.
__device__ void clear(const SaliencyLossArgs& args, int64_t image) {
  const int64_t cells = args.cam_height * args.cam_width;
  if (threadIdx.x == 0) args.values[image] = 0;
  if (args.grad)
    for (int64_t i = threadIdx.x; i < cells; i += kThreads) args.grad[image * cells + i] = 0;
}

__device__ float difference_value(float difference, SaliencyKind kind) {
  return kind == SaliencyKind::mse ? difference * difference : fabsf(difference);
}

__device__ float difference_slope(float difference, SaliencyKind kind) {
  if (kind == SaliencyKind::mse) return 2.0f * difference;
  return difference > 0 ? 1.0f : difference < 0 ? -1.0f : difference;  // 0, or NaN
}

// The gradient that a minimum and a maximum get, from a map's extremes and sums over pixels or cells.
struct ExtremeGradients {
  float low;
  float high;
};

__device__ ExtremeGradients extreme_gradients(float sum, float sum_times_x, float range) {
  return {-(sum - sum_times_x) / range, -sum_times_x / range};
}

}  // namespace
}  // namespace sal_fast
