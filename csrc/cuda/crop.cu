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

struct Stored {
  const int64_t* rows;
  const float* box;
  int64_t count, height, width;
};

// One thread computes this, because double precision is scarce on some GPUs.
__device__ Box box_of(const Stored& stored, int64_t image, int64_t out_height, int64_t out_width) {
  const int64_t row = stored.rows ? stored.rows[image] : image;
  float edges[] = {0.0f, 0.0f, 1.0f, 1.0f};
  if (stored.box)
    for (int i = 0; i < 4; ++i) edges[i] = stored.box[4 * image + i];
  const Places across = places_of(edges[0], edges[2], stored.width, out_width);
  const Places down = places_of(edges[1], edges[3], stored.height, out_height);
  return {row, across, down, row >= 0 && row < stored.count && across.valid && down.valid};
}

// Calls visit(image, box, y, x) for every pixel of the batch. All threads of the grid call it.
template <typename Visit>
__device__ void for_each_pixel(const Stored& stored, int64_t batch, int64_t out_height, int64_t out_width,
                               Visit visit) {
  alignas(Box) __shared__ unsigned char storage[sizeof(Box)];  // a __shared__ variable has no constructor
  Box& box = *reinterpret_cast<Box*>(storage);
  const int width = static_cast<int>(out_width), area = static_cast<int>(out_height * out_width);
  const int tiles = (area + kTile - 1) / kTile;
  for (int64_t tile = blockIdx.x; tile < batch * tiles; tile += gridDim.x) {
    const int64_t image = tile / tiles;
    if (threadIdx.x == 0) box = box_of(stored, image, out_height, out_width);
    __syncthreads();
    const int first = static_cast<int>(tile % tiles) * kTile;
    const int end = first + kTile < area ? first + kTile : area;
    for (int i = first + static_cast<int>(threadIdx.x); i < end; i += kThreads)
      visit(image, box, i / width, i % width);
    __syncthreads();  // the next tile writes here again
  }
}

struct Pixel {
  float at[kChannels];
};

__device__ Pixel pixel_of(const uint8_t* p) {
  return {{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2])}};
}

__device__ Pixel blend_pixels(const Pixel& a, const Pixel& b, float weight) {
  Pixel result;
#pragma unroll
  for (int c = 0; c < kChannels; ++c) result.at[c] = blend(a.at[c], b.at[c], weight);
  return result;
}

// kWhole means that nothing is resized, so that pixels are copied.
template <bool kWhole, typename scalar>
__global__ void __launch_bounds__(kThreads) crop_images_kernel(CropImagesArgs args) {
  const Stored stored{args.rows, args.box, args.stored, args.height, args.width};
  const auto height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const int64_t plane = args.out_height * args.out_width;
  for_each_pixel(
      stored, args.batch, args.out_height, args.out_width, [&](int64_t image, const Box& box, int y, int x) {
        scalar* const out =
            static_cast<scalar*>(args.out) + image * kChannels * plane + int64_t{y} * args.out_width + x;
        Pixel pixel{{kInfinity - kInfinity, 0.0f, 0.0f}};
        if (box.valid) {
          const uint8_t* const from = args.images + box.row * args.image_stride;
          const auto at = [&](int row, int column) {
            return pixel_of(from + row * args.row_stride + kChannels * column);
          };
          if constexpr (kWhole) {
            pixel = at(y, x);
          } else {
            const Between down = between(box.down, y, height);
            const Between across = between(box.across, x, width);
            pixel = blend_pixels(
                blend_pixels(at(down.cell, across.cell), at(down.cell, across.next), across.weight),
                blend_pixels(at(down.next, across.cell), at(down.next, across.next), across.weight),
                down.weight);
          }
        }
        const float* const color = args.color + image * args.color_stride;
#pragma unroll
        for (int c = 0; c < kChannels; ++c)
          from_float(colored(pixel.at[0], pixel.at[1], pixel.at[2], color + 4 * c), out[c * plane]);
      });
}

__global__ void __launch_bounds__(kThreads) crop_masks_kernel(CropMasksArgs args) {
  const Mask& masks = args.masks;
  const Stored stored{args.rows, args.box, args.stored, masks.height, masks.width};
  const auto height = static_cast<int>(masks.height), width = static_cast<int>(masks.width);
  for_each_pixel(
      stored, args.batch, args.out_height, args.out_width, [&](int64_t image, const Box& box, int y, int x) {
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

unsigned blocks_for_tiles(int64_t batch, int64_t area) {
  return blocks_for(batch * ((area + kTile - 1) / kTile));
}

}  // namespace

int crop_images_cuda(const CropImagesArgs& args, void* stream) {
  const int64_t area = args.out_height * args.out_width;
  if (args.batch * area == 0) return cudaSuccess;
  const bool whole = !args.box && args.out_height == args.height && args.out_width == args.width;
  with_scalar(args.dtype, [&](auto zero) {
    using scalar = decltype(zero);
    if (whole) {
      SAL_FAST_LAUNCH((crop_images_kernel<true, scalar>), blocks_for_tiles(args.batch, area), kThreads,
                      stream, args);
    } else {
      SAL_FAST_LAUNCH((crop_images_kernel<false, scalar>), blocks_for_tiles(args.batch, area), kThreads,
                      stream, args);
    }
  });
  return cudaGetLastError();
}

int crop_masks_cuda(const CropMasksArgs& args, void* stream) {
  const int64_t area = args.out_height * args.out_width;
  if (args.batch * area == 0) return cudaSuccess;
  SAL_FAST_LAUNCH(crop_masks_kernel, blocks_for_tiles(args.batch, area), kThreads, stream, args);
  return cudaGetLastError();
}

}  // namespace sal_fast
