// One block does an image. Bytes moved: both masks are read once. Not timed on a GPU yet.
#include "mask.cuh"
#include "sal_fast/launch/dice.h"

namespace sal_fast {
namespace {

constexpr int kThreads = 512;

__global__ void __launch_bounds__(kThreads, 2) dice_kernel(DiceArgs args) {
  __shared__ unsigned both, sizes;
  const auto height = static_cast<int>(args.first.height), width = static_cast<int>(args.first.width);
  const MaskPixels first{args.first, height, width}, second{args.second, height, width};
  for (int64_t image = blockIdx.x; image < args.images; image += gridDim.x) {
    if (threadIdx.x == 0) both = sizes = 0;  // the thread that has read those of the image before
    __syncthreads();
    // This thread counts, in its share, the pixels in both masks, and those in each.
    unsigned of_both = 0, of_sizes = 0;
    const auto add = [&](unsigned a, unsigned b) {
      of_both += __popc(a & b);
      of_sizes += __popc(a) + __popc(b);
    };
    if (args.first.type == args.second.type && first.packed(image) && second.packed(image)) {
      const uint4 *const a = first.pack(image), *const b = second.pack(image);
      for (int i = threadIdx.x; i < first.packs(); i += kThreads) {
        const uint4 one = a[i], other = b[i];  // the bytes of a bool are 0 or 1
        add(one.x, other.x);
        add(one.y, other.y);
        add(one.z, other.z);
        add(one.w, other.w);
      }
    } else {
      for (int row = threadIdx.x / kWarp; row < height; row += kThreads / kWarp)
        for (int column = static_cast<int>(threadIdx.x) % kWarp; column < width; column += kWarp)
          add(first.at(image, row, column), second.at(image, row, column));
    }
    add_to_block(of_both, &both);
    add_to_block(of_sizes, &sizes);
    __syncthreads();
    if (threadIdx.x == 0) args.dice[image] = dice_of(both, sizes, args.empty);
  }
}

}  // namespace

int dice_cuda(const DiceArgs& args, void* stream) {
  if (args.images == 0) return cudaSuccess;
  SAL_FAST_LAUNCH(dice_kernel, blocks_for(args.images), kThreads, stream, args);
  return cudaGetLastError();
}

}  // namespace sal_fast
