// Separable blurs of a tile through shared memory.
#pragma once

#include "device.cuh"
#include "sal_fast/ssim.h"

namespace sal_fast {
namespace {

template <int most>
struct Taps {
  float at[most];
};

template <int most>
Taps<most> taps_of(int64_t window, double sigma) {
  Taps<most> taps{};
  gaussian_taps(window, sigma, taps.at);
  return taps;
}

// A tile of kTile x kTile positions, blurred with kTaps taps, or with up to kTaps if not kFixed. A thread
// sums kStrip neighbouring positions of a row from one read of their samples.
template <int tile, int taps, bool fixed, int strip, int threads>
struct TileShape {
  static constexpr int kThreads = threads;
  static constexpr int kTile = tile;
  static constexpr int kTaps = taps;
  static constexpr bool kFixed = fixed;
  static constexpr int kStrip = strip;
  static constexpr int kSide = tile + taps - 1;  // of the samples under the tile's windows
  static constexpr int kPitch = kSide | 1;       // odd: threads that take a row each meet no bank conflict
  static constexpr int kTilePitch = tile | 1;
  static constexpr int kEach = tile * tile / threads;  // positions a thread, in one column

  // The column and the rows of this thread's positions.
  __device__ static int column() { return threadIdx.x % kTile; }
  __device__ static int row(int i) { return threadIdx.x / kTile * kEach + i; }
};

// The windows of the usual SSIM have tiles of their own. The tiles of all other windows are smaller.
constexpr int kLeastTile = 16;

// Calls run with the shape of the tiles for a window.
template <int threads, typename Run>
auto with_shape(int64_t window, Run run) {
  if (window == 11) return run(TileShape<32, 11, true, 8, threads>{});
  if (window == 7) return run(TileShape<32, 7, true, 8, threads>{});
  return run(TileShape<kLeastTile, 33, false, 4, threads>{});
}

// A plane of samples, and the plane after its rows are blurred.
template <typename Shape>
using Samples = float[Shape::kSide][Shape::kPitch];
template <typename Shape>
using BlurredRows = float[Shape::kSide][Shape::kTilePitch];

// out[q] = the q-th quantity of the first `rows` rows, blurred along the rows by tap(0), ..., tap(count - 1).
// get(row, column, values) gives a sample's quantities.
template <typename Shape, int quantities, typename Tap, typename Get>
__device__ void blur_rows(int count, Tap tap, Get get, BlurredRows<Shape> (&out)[quantities], int rows) {
  constexpr int kStrip = Shape::kStrip;
  for (int item = threadIdx.x; item < rows * (Shape::kTile / kStrip); item += Shape::kThreads) {
    const int row = item % rows;
    const int first = item / rows * kStrip;
    float sums[quantities][kStrip] = {};
#pragma unroll
    for (int i = 0; i < kStrip + count - 1; ++i) {
      float values[quantities];
      get(row, first + i, values);
#pragma unroll
      for (int s = 0; s < kStrip; ++s) {
        if (i - s < 0 || i - s >= count) continue;
        const float weight = tap(i - s);
#pragma unroll
        for (int q = 0; q < quantities; ++q) sums[q][s] += weight * values[q];
      }
    }
#pragma unroll
    for (int q = 0; q < quantities; ++q)
#pragma unroll
      for (int s = 0; s < kStrip; ++s) out[q][row][first + s] = sums[q][s];
  }
}

// Adds the blur along the columns at this thread's positions.
template <typename Shape, int quantities, typename Tap>
__device__ void blur_columns(int count, Tap tap, const BlurredRows<Shape> (&in)[quantities],
                             float (&sums)[quantities][Shape::kEach]) {
  constexpr int kEach = Shape::kEach;
#pragma unroll
  for (int i = 0; i < kEach + count - 1; ++i) {
#pragma unroll
    for (int s = 0; s < kEach; ++s) {
      if (i - s < 0 || i - s >= count) continue;
      const float weight = tap(i - s);
#pragma unroll
      for (int q = 0; q < quantities; ++q) sums[q][s] += weight * in[q][Shape::row(0) + i][Shape::column()];
    }
  }
}

// The five quantities of a window's moments.
__device__ inline void moments_of(float x, float y, float (&values)[5]) {
  values[0] = x;
  values[1] = y;
  values[2] = x * x;
  values[3] = y * y;
  values[4] = x * y;
}

}  // namespace
}  // namespace sal_fast
