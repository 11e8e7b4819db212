// The first launch beyond 1024 pixels. One block for each image finds the extremes of both maps, and the
// pixels of the enlarged CAM that stand at its extremes. The blocks after those make the tables.
#pragma once

#include "saliency_loss_layout.cuh"
#include "saliency_loss_target.cuh"

namespace sal_fast {
namespace {

constexpr int kTableThreads = 128;  // of the kThreads of a block, because an item takes long

// The number of places and coefficients that are to be made.
int64_t table_items(const Layout& layout) {
  return layout.sides[0].length + layout.sides[1].length + layout.entries(0) + layout.entries(1);
}

template <int most>
__device__ void make_table_item(const Layout& layout, const Taps<most>& taps, int64_t item) {
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    const Axis& axis = layout.sides[side];
    if (item < axis.length) {
      layout.places(side)[item] = axis.place(static_cast<int>(item));
      return;
    }
    item -= axis.length;
    const int64_t entries = layout.entries(side);
    if (item < entries) {
      const auto position = static_cast<int>(item / kCells);
      const Region region = axis.region(position / axis.tile * axis.tile, axis.tile,
                                        [&](int pixel) { return axis.place(pixel); });
      layout.table(side)[item] =
          coefficients(axis, taps, position, region.first_cell + static_cast<int>(item % kCells));
      return;
    }
    item -= entries;
  }
}

// Bilinear cell i has the pixels [first, last] of each side that lie between cells (k, l) and (k + 1, l + 1).
struct Cell {
  int first[2];
  int last[2];
  int at[2];
};

__device__ Cell cell_of(const Layout& layout, int i) {
  const int across = layout.sides[1].cells;
  Cell cell{{}, {}, {i / across, i % across}};
#pragma unroll
  for (int side = 0; side < 2; ++side) {
    const Axis& axis = layout.sides[side];
    cell.first[side] = first_pixel(cell.at[side], axis.cells, axis.length);
    cell.last[side] = first_pixel(cell.at[side] + 1, axis.cells, axis.length) - 1;
  }
  return cell;
}

// Shares the pixels of a bilinear cell that tie with an extreme among its four CAM cells. A warp does this,
// with a column for each lane. A column is monotone, so that ties stand at its ends.
__device__ void share_ties(const Layout& layout, const float* cam, const Cell& cell, float low, float high,
                           float (&ties)[Layout::kTies]) {
  const Axis &down = layout.sides[0], &across = layout.sides[1];
  for (int pixel = cell.first[1] + static_cast<int>(threadIdx.x) % kWarp; pixel <= cell.last[1];
       pixel += kWarp) {
    const Between column = across.place(pixel);
    const auto add = [&](int row_pixel) {
      const Between row = down.place(row_pixel);
      const float z = enlarged(cam, across.cells, row, column);
      if (!(z <= low || z >= high)) return false;
      const float top = 1.0f - row.weight, left = 1.0f - column.weight;
      const float shares[4] = {top * left, top * column.weight, row.weight * left,
                               row.weight * column.weight};
#pragma unroll
      for (int i = 0; i < Layout::kTies; ++i) ties[i] += (z <= low) == (i < 4) ? shares[i % 4] : 0.0f;
      return true;
    };
    int top = cell.first[0], bottom = cell.last[0];
    while (top <= bottom && add(top)) ++top;
    while (bottom > top && add(bottom)) --bottom;
  }
}

template <int most>
__global__ void __launch_bounds__(kThreads, 1)
    extremes_kernel(SaliencyLossArgs args, Taps<most> taps, float shift, Layout layout, int64_t items) {
  const auto cam_width = static_cast<int>(args.cam_width);
  const auto cells = static_cast<int>(layout.cells);
  const int64_t table_blocks = (items + kTableThreads - 1) / kTableThreads;
  for (int64_t block = blockIdx.x; block < args.images + table_blocks; block += gridDim.x) {
    if (block >= args.images) {
      const int64_t item = (block - args.images) * kTableThreads + threadIdx.x;
      if (threadIdx.x < kTableThreads && item < items) make_table_item(layout, taps, item);
      continue;
    }
    const int64_t image = block;
    if (!has_map(args, image)) {
      if (threadIdx.x == 0) layout.extremes(image) = {};
      continue;
    }
    float* const cam = layout.cam(image);
    for (int i = threadIdx.x; i < cells; i += kThreads)
      cam[i] = load_float(args.cam, args.dtype, image * cells + i);
    float extremes[4] = {kInfinity, -kInfinity, kInfinity, -kInfinity};
    add_target_extremes<kThreads>(args, image, extremes[2], extremes[3]);
    __syncthreads();

    // The extremes of a bilinear cell are among its corners.
    for (int i = threadIdx.x; i < 4 * cells; i += kThreads) {
      const Cell cell = cell_of(layout, i / 4);
      const int row = i / 2 % 2 ? cell.last[0] : cell.first[0];
      const int column = i % 2 ? cell.last[1] : cell.first[1];
      const float z = enlarged(cam, cam_width, layout.sides[0].place(row), layout.sides[1].place(column));
      layout.corners(image)[i] = z;
      extremes[0] = Min{}(extremes[0], z);
      extremes[1] = Max{}(extremes[1], z);
    }
    reduce_block<kThreads>(extremes, Min{}, Max{}, Min{}, Max{});
    const float low = extremes[0], high = extremes[1];
    const bool flat = is_flat(low, high);
    const float inverse = flat ? 0.0f : 1.0f / (high - low);
    if (threadIdx.x == 0) {
      const float human_low = extremes[2], human_high = extremes[3];
      layout.extremes(image) = {is_flat(human_low, human_high) ? 0.0f : 1.0f,
                                flat ? 1.0f : 0.0f,
                                low,
                                flat ? kInfinity : high,
                                inverse,
                                human_low,
                                human_high,
                                1.0f / (human_high - human_low)};
    }
    const int framed = layout.framed_width() * (layout.sides[0].cells + 2 * Layout::kFrame);
    for (int i = threadIdx.x; i < framed; i += kThreads) {
      const int k = i / layout.framed_width() - Layout::kFrame,
                l = i % layout.framed_width() - Layout::kFrame;
      const bool inside = k >= 0 && k < layout.sides[0].cells && l >= 0 && l < cam_width;
      layout.framed(image)[i] = (inside ? (cam[k * cam_width + l] - low) * inverse : 0.0f) - shift;
    }
    if (!args.grad) continue;

    // By so much may rounding move the pixels inside a bilinear cell beyond its corners.
    const float slack = 1e-6f * larger(fabsf(low), fabsf(high));
    float* const ties = layout.ties(image);
    for (int i = threadIdx.x / kWarp; i < cells; i += kThreads / kWarp) {
      const float* corners = layout.corners(image) + 4 * i;
      float least = kInfinity, most_of_cell = -kInfinity;
      for (int corner = 0; corner < 4; ++corner) {
        least = smaller(least, corners[corner]);
        most_of_cell = larger(most_of_cell, corners[corner]);
      }
      float of_cell[Layout::kTies] = {};
      if (!(least > low + slack && most_of_cell < high - slack)) {
        share_ties(layout, cam, cell_of(layout, i), low, high, of_cell);
#pragma unroll
        for (float& tie : of_cell) tie = merge_lanes<kWarp>(tie, Sum{});
      }
      if (threadIdx.x % kWarp == 0)
        for (int e = 0; e < Layout::kTies; ++e) ties[i * Layout::kTies + e] = of_cell[e];
    }
    __syncthreads();
    float counts[2] = {};
    for (int i = threadIdx.x; i < cells; i += kThreads) {
      const bool above = i >= cam_width, left = i % cam_width > 0;
      for (int e = 0; e < 2; ++e) {
        const float* own = ties + i * Layout::kTies + 4 * e;
        float sum = own[0];
        if (left) sum += own[1 - Layout::kTies];
        if (above) sum += own[2 - cam_width * Layout::kTies];
        if (above && left) sum += own[3 - (cam_width + 1) * Layout::kTies];
        layout.shares(image, e)[i] = sum;
        counts[e] += sum;
      }
    }
    reduce_block<kThreads>(counts, Sum{}, Sum{});
    for (int i = threadIdx.x; i < cells; i += kThreads)
      for (int e = 0; e < 2; ++e) layout.shares(image, e)[i] /= counts[e];
  }
}

}  // namespace
}  // namespace sal_fast
