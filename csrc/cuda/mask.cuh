// The pixels of binary masks, however these are stored.
#pragma once

#include "block.cuh"
#include "sal_fast/launch/mask.h"
#include "sal_fast/topn.h"

namespace sal_fast {
namespace {

// The masks read by nearest at a size of height x width.
struct MaskPixels {
  Mask mask;
  int height;
  int width;

  __device__ bool at(int64_t image, int row, int column) const {
    const int64_t y = nearest(row, mask.height, height), x = nearest(column, mask.width, width);
    const int64_t line = image * mask.image_stride + y * mask.row_stride;
    if (mask.type == MaskType::bits)
      return static_cast<const unsigned*>(mask.data)[line + x / kWarp] >> x % kWarp & 1u;
    return static_cast<const unsigned char*>(mask.data)[line + x * mask.column_stride] != 0;
  }

  // Whether an image is one contiguous piece of 16-byte packs.
  __device__ bool packed(int64_t image) const {
    if (mask.height != height || mask.width != width) return false;
    const bool bits = mask.type == MaskType::bits;
    const int64_t row = bits ? width / kWarp : width, unit = bits ? 4 : 1;
    return (!bits || width % kWarp == 0) && mask.column_stride == 1 && mask.row_stride == row &&
           row * height * unit % 16 == 0 && reinterpret_cast<uintptr_t>(pack(image)) % 16 == 0;
  }
  __device__ const uint4* pack(int64_t image) const {
    const int64_t unit = mask.type == MaskType::bits ? 4 : 1;
    return reinterpret_cast<const uint4*>(static_cast<const char*>(mask.data) +
                                          image * mask.image_stride * unit);
  }
  __device__ int packs() const {
    return static_cast<int>(int64_t{height} * width / (mask.type == MaskType::bits ? 128 : 16));
  }

  // The number of set pixels in this thread's share of an image, which `kThreads` threads count.
  template <int kThreads>
  __device__ unsigned count(int64_t image) const {
    unsigned total = 0;
    if (packed(image)) {
      const uint4* const words = pack(image);
      for (int i = threadIdx.x; i < packs(); i += kThreads) {
        const uint4 word = words[i];  // the bytes of a bool are 0 or 1
        total += __popc(word.x) + __popc(word.y) + __popc(word.z) + __popc(word.w);
      }
      return total;
    }
    const int columns = static_cast<int>(threadIdx.x) % kWarp;
    for (int row = threadIdx.x / kWarp; row < height; row += kThreads / kWarp)
      for (int column = columns; column < width; column += kWarp) total += at(image, row, column);
    return total;
  }
};

// Adds the values of the whole block to `total`, in shared memory, which may be read after a barrier.
__device__ void add_to_block(unsigned value, unsigned* total) {
  value = merge_lanes<kWarp>(value, Sum{});
  if (threadIdx.x % kWarp == 0 && value > 0) atomicAdd(total, value);
}

}  // namespace
}  // namespace sal_fast
