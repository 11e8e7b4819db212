#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

enum class Probe : int { cam, gradcam, gradcampp, hirescam };

// Which axis of an image is contiguous: nchw is a matrix [channels, pixels], nhwc [pixels, channels].
enum class Layout : int { nchw, nhwc };

// Rows and columns of that matrix that one block of the GPU takes, at least: what bounds the workspace.
constexpr int64_t kCamTile = 64;

struct CamArgs {
  const void* features;  // an image is a matrix with contiguous rows, see Layout
  DType dtype;
  int64_t images;
  int64_t channels;
  int64_t pixels;
  Layout layout;
  int64_t image_stride;
  int64_t row_stride;  // at least a row's length
  const void* weight;  // [classes, channels] contiguous
  DType weight_dtype;
  int64_t classes;
  const int64_t* target;  // [images]; a class out of range makes its map NaN
  Probe probe;
  const float* known_pooled;  // [images, channels]: for gradcampp where pooled is null
  float* pooled;              // [images, channels], or null: not wanted
  float* cam;                 // [images, pixels], or null: not wanted, and neither are weight and target
  float* workspace;           // on the device, cam_workspace() floats; the CPU needs none
};

struct CamBackwardArgs {
  const void* features;
  DType dtype;
  int64_t images;
  int64_t channels;
  int64_t pixels;
  Layout layout;
  int64_t image_stride;
  int64_t row_stride;
  const void* weight;
  DType weight_dtype;
  int64_t classes;
  const int64_t* target;
  Probe probe;
  const float* pooled;       // [images, channels]
  const float* cam;          // [images, pixels], the forward's
  const float* grad_cam;     // [images, pixels], or null: 0
  const float* grad_pooled;  // [images, channels], or null: 0
  void* grad_features;       // of the features' dtype, dense in their layout, or null: not wanted
  float* grad_weight;        // [classes, channels], added to, or null: not wanted
  float* workspace;          // on the device, cam_backward_workspace() floats; the CPU needs none
};

// The features are read for these two alone: grad_features is a sum of two outer products.
inline bool cam_backward_reads(const CamBackwardArgs& args) {
  return args.grad_cam && (args.grad_weight || (args.grad_features && args.probe == Probe::gradcampp));
}

void cam_cpu(const CamArgs& args, int threads);
int cam_cuda(const CamArgs& args, void* stream);
void cam_backward_cpu(const CamBackwardArgs& args, int threads);
int cam_backward_cuda(const CamBackwardArgs& args, void* stream);

// Partial sums over a tile's columns, for each row, and over a tile's rows, for each column.
inline int64_t cam_workspace(int64_t images, int64_t channels, int64_t pixels) {
  const int64_t channel_tiles = (channels + kCamTile - 1) / kCamTile;
  const int64_t pixel_tiles = (pixels + kCamTile - 1) / kCamTile;
  return images * (channel_tiles * pixels + pixel_tiles * channels);
}

// The same, and a pair of coefficients of each channel.
inline int64_t cam_backward_workspace(int64_t images, int64_t channels, int64_t pixels) {
  return cam_workspace(images, channels, pixels) + 2 * images * channels;
}

}  // namespace sal_fast
