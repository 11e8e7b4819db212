// A thread does all three channels of a pixel, so that a warp writes 32 neighbours of each plane. Bytes
// moved: the pixels that a crop covers, once from memory, and its result. The four neighbours of a pixel are
// mostly those of the threads beside it, and come from the L1 cache. A block takes kTile pixels of one image,
// and finds the places of its box once. There is no workspace. Not timed on a GPU yet.
#include "device.cuh"
#include "sal_fast/crop.h"

namespace sal_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kTile = 4 * kThreads;
constexpr int kChannels = 3;

// One image of the batch. It is the same for all threads of a block.
struct Box {
  int64_t row;
  Places across, down;
  bool valid;
};

// One thread computes this, because double precision is scarce on some GPUs.
template <typename Args>
__device__ Box box_of(const Args& args, int height, int width, int64_t image) {
  const int64_t row = args.rows ? args.rows[image] : image;
  float edges[] = {0.0f, 0.0f, 1.0f, 1.0f};
  if (args.box)
    for (int i = 0; i < 4; ++i) edges[i] = args.box[4 * image + i];
  const Places across = places_of(edges[0], edges[2], width, args.out_width);
  const Places down = places_of(edges[1], edges[3], height, args.out_height);
  return {row, across, down, row >= 0 && row < args.stored && across.valid && down.valid};
}

// Calls visit(image, box, y, x) for every pixel of the batch, whose stored images are of height x width. All
// threads of the grid call it.
template <typename Args, typename Visit>
__device__ void for_each_pixel(const Args& args, int height, int width, Visit visit) {
  __shared__ Box box;
  const int out_width = static_cast<int>(args.out_width);
  const int area = static_cast<int>(args.out_height) * out_width;
  const int tiles = (area + kTile - 1) / kTile;
  for (int64_t tile = blockIdx.x; tile < args.batch * tiles; tile += gridDim.x) {
    const int64_t image = tile / tiles;
    if (threadIdx.x == 0) box = box_of(args, height, width, image);
    __syncthreads();
    const int first = static_cast<int>(tile % tiles) * kTile;
    const int end = first + kTile < area ? first + kTile : area;
    for (int i = first + static_cast<int>(threadIdx.x); i < end; i += kThreads)
      visit(image, box, i / out_width, i % out_width);
    __syncthreads();  // the next tile writes here again
  }
}

// kWhole means that nothing is resized, so that pixels are copied.
template <bool kWhole, typename scalar>
__global__ void __launch_bounds__(kThreads) crop_images_kernel(CropImagesArgs args) {
  const auto height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const int64_t plane = args.out_height * args.out_width;
  for_each_pixel(args, height, width, [&](int64_t image, const Box& box, int y, int x) {
    scalar* const out =
        static_cast<scalar*>(args.out) + image * kChannels * plane + int64_t{y} * args.out_width + x;
    float pixel[kChannels] = {kInfinity - kInfinity, 0.0f, 0.0f};
    if (box.valid) {
      const uint8_t* const from = args.images + box.row * args.image_stride;
      const auto at = [&](int row, int column, int c) {
        return static_cast<float>(from[row * args.row_stride + kChannels * column + c]);
      };
      const Between down = between(box.down, y, height), across = between(box.across, x, width);
#pragma unroll
      for (int c = 0; c < kChannels; ++c) {
        const auto of_row = [&](int row) {
          return blend(at(row, across.cell, c), at(row, across.next, c), across.weight);
        };
        pixel[c] = kWhole ? at(y, x, c) : blend(of_row(down.cell), of_row(down.next), down.weight);
      }
    }
    const float* const color = args.color + image * args.color_stride;
#pragma unroll
    for (int c = 0; c < kChannels; ++c)
      from_float(colored(pixel[0], pixel[1], pixel[2], color + 4 * c), out[c * plane]);
  });
}

__global__ void __launch_bounds__(kThreads) crop_masks_kernel(CropMasksArgs args) {
  const Mask& masks = args.masks;
  const auto height = static_cast<int>(masks.height), width = static_cast<int>(masks.width);
  for_each_pixel(args, height, width, [&](int64_t image, const Box& box, int y, int x) {
    unsigned char value = 0;
    if (box.valid) {
      const int row = pixel_at(box.down, y, height), column = pixel_at(box.across, x, width);
      const int64_t line = box.row * masks.image_stride + row * masks.row_stride;
      value = masks.type == MaskType::bits
                  ? static_cast<const unsigned*>(masks.data)[line + column / kWarp] >> column % kWarp & 1u
                  : static_cast<const unsigned char*>(masks.data)[line + column];
    }
    static_cast<unsigned char*>(args.out)[(image * args.out_height + y) * args.out_width + x] = value;
  });
}

template <typename Args>
unsigned blocks_of(const Args& args) {
  return blocks_for(args.batch * ((args.out_height * args.out_width + kTile - 1) / kTile));
}

}  // namespace

int crop_images_cuda(const CropImagesArgs& args, void* stream) {
  const unsigned blocks = blocks_of(args);
  if (blocks == 0) return cudaSuccess;
  const bool whole = !args.box && args.out_height == args.height && args.out_width == args.width;
  return with_scalar(args.dtype, [&](auto zero) {
    with_flag(whole, [&](auto copied) {
      SAL_FAST_LAUNCH((crop_images_kernel<copied.value, decltype(zero)>), blocks, kThreads, stream, args);
    });
  });
}

int crop_masks_cuda(const CropMasksArgs& args, void* stream) {
  const unsigned blocks = blocks_of(args);
  if (blocks == 0) return cudaSuccess;
  SAL_FAST_LAUNCH(crop_masks_kernel, blocks, kThreads, stream, args);
  return cudaGetLastError();
}

}  // namespace sal_fast
