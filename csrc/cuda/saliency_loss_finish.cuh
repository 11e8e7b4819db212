// The last launch beyond 1024 pixels. A block does an image: it adds the tiles' sums in a fixed order, and
// takes the gradient back through the extremes.
#pragma once

#include "saliency_loss_layout.cuh"

namespace sal_fast {
namespace {

constexpr int kMostTiles = kMostSide / kLeastTile;  // a side

__global__ void __launch_bounds__(kThreads, 1) finish_kernel(SaliencyLossArgs args, Layout layout) {
  // The first cell and the number of cells that each row and each column of tiles touches.
  __shared__ short first[2][kMostTiles], touched[2][kMostTiles];
  const auto cam_width = static_cast<int>(args.cam_width), cells = static_cast<int>(layout.cells);
  const int tiles_down = layout.sides[0].tiles, tiles_across = layout.sides[1].tiles;
#pragma unroll
  for (int way = 0; way < 2; ++way) {
    const Axis& axis = layout.sides[way];
    for (int i = threadIdx.x; i < axis.tiles; i += kThreads) {
      const Region region = layout.region(way, i * axis.tile, axis.tile);
      first[way][i] = static_cast<short>(region.first_cell);
      touched[way][i] = static_cast<short>(region.cells);
    }
  }
  // The barriers of the first sum stand between these and their use.
  for (int64_t image = blockIdx.x; image < args.images; image += gridDim.x) {
    const Extremes extremes = layout.extremes(image);
    if (extremes.counts == 0) {
      clear(args, image);
      continue;
    }
    float value = 0;
    for (int64_t i = threadIdx.x; i < int64_t{tiles_down} * tiles_across; i += kThreads)
      value += layout.tile(image, 0, 0)[i * layout.per_tile];
    value = merge_lanes<kThreads>(value, Sum{});
    if (threadIdx.x == 0) args.values[image] = args.kind == SaliencyKind::ssim_l1 ? 1.0f + value : value;
    if (!args.grad) continue;

    float* const grad = args.grad + image * cells;
    if (extremes.flat != 0) {
      for (int i = threadIdx.x; i < cells; i += kThreads) grad[i] = 0;
      continue;
    }
    const float* cam = layout.cam(image);
    float sums[2] = {};  // of D, and of D N
    for (int i = threadIdx.x; i < cells; i += kThreads) {
      const int k = i / cam_width, l = i % cam_width;
      float sum = 0;
      for (int row = 0; row < tiles_down; ++row) {
        const int r = k - first[0][row];
        if (r < 0 || r >= touched[0][row]) continue;
        for (int column = 0; column < tiles_across; ++column) {
          const int c = l - first[1][column];
          if (c < 0 || c >= touched[1][column]) continue;
          sum += layout.tile(image, row, column)[1 + r * layout.sides[1].touched + c];
        }
      }
      grad[i] = sum;
      sums[0] += sum;
      sums[1] += sum * ((cam[i] - extremes.low) * extremes.inverse);
    }
    reduce_block<kThreads>(sums, Sum{}, Sum{});
    const ExtremeGradients extreme = extreme_gradients(sums[0], sums[1], extremes.high - extremes.low);
    const auto weight = static_cast<float>(args.weight);
    for (int i = threadIdx.x; i < cells; i += kThreads)
      grad[i] = weight * (grad[i] * extremes.inverse + extreme.low * layout.shares(image, 0)[i] +
                          extreme.high * layout.shares(image, 1)[i]);
  }
}

}  // namespace
}  // namespace sal_fast
