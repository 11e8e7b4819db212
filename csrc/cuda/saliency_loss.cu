// Up to 1024 pixels (32 x 32) one launch, a block an image, does everything: the default, bound by that
// launch and by the target's bytes (target_height * target_width of them, read once).
//
// TODO header
#include "saliency_loss_extremes.cuh"
#include "saliency_loss_few.cuh"
#include "saliency_loss_finish.cuh"
#include "saliency_loss_tiles.cuh"

namespace sal_fast {
namespace {

constexpr float kRange = 1.0f;

template <typename Shape>
Layout layout_of(const SaliencyLossArgs& args) {
  const auto axis = [&](int64_t length, int64_t cells) {
    const int64_t tiles = (length + Shape::kTile - 1) / Shape::kTile;
    Axis axis{static_cast<int>(length),
              static_cast<int>(cells),
              static_cast<int>(ssim_positions(length, args.window, args.border)),
              static_cast<int>(args.window),
              args.border,
              Shape::kTile,
              static_cast<int>(tiles),
              0};
    axis.touched = axis.most_touched(Shape::kTile);
    return axis;
  };
  const Axis down = axis(args.height, args.cam_height), across = axis(args.width, args.cam_width);
  const bool tables =
      down.touched <= kCells && across.touched <= kCells && down.most_touched(Shape::kEach) <= kBand;
  return {args.workspace, args.images, args.cam_height * args.cam_width, {down, across}, tables};
}

bool few_pixels(const SaliencyLossArgs& args) {
  return args.height * args.width <= kFewPixels;
}

// mse needs no window.
SaliencyLossArgs without_unused(SaliencyLossArgs args) {
  if (args.kind == SaliencyKind::mse) {
    args.window = 1;
    args.border = Border::valid;
  }
  return args;
}

template <typename Run>
auto with_shape(int64_t window, Run run) {
  if (window == 11) return run(Tile11{});
  if (window == 7) return run(Tile7{});
  return run(TileAny{});
}

unsigned blocks_for(int64_t count) {
  constexpr int64_t kMostBlocks = 1 << 20;  // the kernels stride over the grid
  return static_cast<unsigned>(count < kMostBlocks ? count : kMostBlocks);
}

}  // namespace

int64_t saliency_loss_workspace(const SaliencyLossArgs& given) {
  const SaliencyLossArgs args = without_unused(given);
  if (few_pixels(args)) return 0;
  return with_shape(args.window, [&](auto shape) { return layout_of<decltype(shape)>(args).floats(); });
}

int saliency_loss_cuda(const SaliencyLossArgs& given, void* stream) {
  const SaliencyLossArgs args = without_unused(given);
  if (args.images == 0) return cudaSuccess;
  const SsimConstants constants = ssim_constants(kRange);
  if (few_pixels(args)) {
    SAL_FAST_LAUNCH(few_pixels_kernel, blocks_for(args.images), kThreads, stream, args,
                    taps_of<kFewTaps>(args.window, args.sigma), constants);
    return cudaGetLastError();
  }
  with_shape(args.window, [&](auto shape) {
    using Shape = decltype(shape);
    const Layout layout = layout_of<Shape>(args);
    const auto taps = taps_of<Shape::kTaps>(args.window, args.sigma);
    const int64_t table_blocks = (table_items(layout) + kTableThreads - 1) / kTableThreads;
    SAL_FAST_LAUNCH((extremes_kernel<Shape::kTaps>), blocks_for(args.images + table_blocks), kThreads, stream,
                    args, taps, layout);
    constexpr int64_t kMostDeep = 65535;  // of a grid
    const dim3 tiles(layout.sides[1].tiles, layout.sides[0].tiles,
                     static_cast<unsigned>(args.images < kMostDeep ? args.images : kMostDeep));
    if (layout.tables) {
      SAL_FAST_LAUNCH((tiles_kernel<Shape, true>), tiles, kTileThreads, stream, args, taps, constants,
                      layout);
    } else {
      SAL_FAST_LAUNCH((tiles_kernel<Shape, false>), tiles, kTileThreads, stream, args, taps, constants,
                      layout);
    }
    SAL_FAST_LAUNCH(finish_kernel, blocks_for(args.images), kThreads, stream, args, layout);
  });
  return cudaGetLastError();
}

}  // namespace sal_fast
