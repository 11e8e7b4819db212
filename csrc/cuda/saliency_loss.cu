// Up to 1024 pixels (32 x 32) one launch, a block an image, does everything: the default, bound by that
// launch and by the target's bytes (target_height * target_width of them, read once).
//
// Beyond, three launches: the extremes of both maps, and tables that depend on the sizes alone; tiles of 32 x
// 32 positions of the window and as many pixels; the sums of the tiles in a fixed order, and the way back
// through the extremes. Derivation: sal_fast/ops/saliency_loss/README.md.
//
// Bytes: the target once for its extremes, and once with the halo of its tiles (a factor 1.7 at window 11); 4
// (1 + cells touched) per tile, twice; the tables of the sides, from the cache.
//
// Multiply-adds per position at window 11 and 7 cells on 224 pixels: 9 for E[x] and E[xx] and 12 back, 30 for
// the similarity, 10 for a pixel: all of a tile under which the human map has one value, as most of a drawn
// map have. Where it has two, 51 more for the blurs of y and xy, 33 for the blur back, 15 for samples and
// cells; where it is graded, 25 for yy. (227 for five blurs forward and three back.) Instructions, addresses
// and loads included, are about 250 a position in a tile of one value (the lines of the SASS of sm_90 added
// up with the trips of their loops) and some 480 in one of two (an estimate): the arithmetic is not the most
// of it.
//
// A CAM that is enlarged less than about 10 times has too many cells under a tile for tables: x and xx are
// blurred there as y and xy are, in the same kernel.
//
// Registers and shared memory: one launch 89 (112 on sm_100) and 42 KB; tiles up to 128 and 36 KB with
// tables (4 blocks of 128 threads an SM), 46 KB without; extremes up to 80. No spills for sm_80, sm_90,
// sm_100 (nvcc 13.0). Not timed on a GPU yet.
//
// The gradient is made with the value. With N the normalised CAM, the maps are x = U N U', U the rows' and
// columns' bilinear weights (with the border's padding), so that D = dL/dN = U' (dL/dx) U is all that leaves
// a tile. As rows of U sum to 1, sum(dL/dx) = sum(D) and sum(x dL/dx) = <D, N>, which is what the extremes
// need.
#include "saliency_loss_extremes.cuh"
#include "saliency_loss_few.cuh"
#include "saliency_loss_finish.cuh"
#include "saliency_loss_tiles.cuh"

namespace sal_fast {
namespace {

bool few_pixels(const SaliencyLossArgs& args) {
  return args.height * args.width <= kFewPixels;
}

__global__ void __launch_bounds__(kThreads, 1)
    few_pixels_kernel(SaliencyLossArgs args, Taps<kFewTaps> all_taps, SsimConstants constants) {
  __shared__ float taps[kFewTaps];
  __shared__ FewMemory memory;
  const int cells = static_cast<int>(args.cam_height * args.cam_width);
  if (threadIdx.x < kFewTaps) taps[threadIdx.x] = all_taps.at[threadIdx.x];
  for (int64_t image = blockIdx.x; image < args.images; image += gridDim.x) {
    if (!has_map(args, image)) {
      clear(args, image);
      continue;
    }
    for (int i = threadIdx.x; i < cells; i += kThreads)
      memory.cam()[i] = load_float(args.cam, args.dtype, image * cells + i);
    compare_few(
        args, image, taps, constants, args.grad != nullptr, memory, args.values + image,
        [&](int i, float slope) { args.grad[image * cells + i] = static_cast<float>(args.weight) * slope; });
  }
}

}  // namespace

int64_t workspace_floats(const SaliencyLossArgs& given) {
  const SaliencyLossArgs args = without_unused(given);
  if (few_pixels(args)) return 0;
  return with_shape<kTileThreads>(args.window, [&](auto shape) { return Layout(args, shape).floats(); });
}

int saliency_loss_cuda(const SaliencyLossArgs& given, void* stream) {
  const SaliencyLossArgs args = without_unused(given);
  // The kernels' shared memory is sized for a CAM that is enlarged.
  if (args.cam_height > args.height || args.cam_width > args.width) return cudaErrorInvalidValue;
  if (args.images == 0) return cudaSuccess;
  const SsimConstants constants = ssim_constants(1.0, args.window);
  if (few_pixels(args)) {
    SAL_FAST_LAUNCH(few_pixels_kernel, blocks_for(args.images), kThreads, stream, args,
                    taps_of<kFewTaps>(args.window, args.sigma), constants);
    return cudaGetLastError();
  }
  with_shape<kTileThreads>(args.window, [&](auto shape) {
    using Shape = decltype(shape);
    const Layout layout(args, shape);
    const auto taps = taps_of<Shape::kTaps>(args.window, args.sigma);
    const int64_t items = table_items(layout);
    const int64_t table_blocks = (items + kTableThreads - 1) / kTableThreads;
    SAL_FAST_LAUNCH((extremes_kernel<Shape::kTaps>), blocks_for(args.images + table_blocks), kThreads, stream,
                    args, taps, constants.shift, layout, items);
    constexpr int64_t kMostDeep = 65535;  // of a grid
    const dim3 tiles(layout.sides[1].tiles, layout.sides[0].tiles,
                     static_cast<unsigned>(args.images < kMostDeep ? args.images : kMostDeep));
    with_flag(layout.tables, [&](auto tables) {
      SAL_FAST_LAUNCH((tiles_kernel<Shape, tables.value>), tiles, kTileThreads, stream, args, taps, constants,
                      layout);
    });
    SAL_FAST_LAUNCH(finish_kernel, blocks_for(args.images), kThreads, stream, args, layout);
  });
  return cudaGetLastError();
}

}  // namespace sal_fast
