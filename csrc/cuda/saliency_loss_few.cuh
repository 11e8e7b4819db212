// Up to 1024 pixels one block does everything for an image.
#pragma once

#include "saliency_loss_layout.cuh"
#include "saliency_loss_target.cuh"

namespace sal_fast {
namespace {

constexpr int kFewPixels = 1024;
constexpr int kFewTaps = 31;
constexpr int kOwn = kFewPixels / kThreads;  // pixels a thread

// Calls visit(own, i) for the pixels i of this thread, which are number `own` of its registers.
template <typename Visit>
__device__ void for_each_own(int pixels, Visit visit) {
#pragma unroll
  for (int own = 0; own < kOwn; ++own) {
    const int i = threadIdx.x + own * kThreads;
    if (i < pixels) visit(own, i);
  }
}

// Calls visit(tap, sample) for the samples of a window. Sample -1 stands for a zero.
template <typename Visit>
__device__ void for_each_tap(const Axis& side, const float* taps, int position, Visit visit) {
#pragma unroll 1
  for (int k = 0; k < side.window; ++k)
    visit(taps[k], padded_index(position + k - side.pad(), side.length, side.pad(), side.border));
}

// Calls visit(weight, position) for the window positions that a sample reaches.
template <typename Visit>
__device__ void for_each_reached(const Axis& side, const float* taps, int sample, Visit visit) {
  const int pad = side.border == Border::valid ? side.window - 1 : side.window / 2;
  const float after = end_weight(sample, side.length, side.border, 0.5f);
#pragma unroll 1
  for (int k = 0; k < side.window; ++k) {
    const int position = padded_index(sample + k - pad, side.positions, pad, side.border);
    if (position >= 0)
      visit(taps[k] * after * end_weight(position, side.positions, side.border, 2.0f), position);
  }
}

// The memory that a block shares for an image. It holds the CAM first, then the two maps and their sums.
struct FewMemory {
  float x[kFewPixels], y[kFewPixels], slopes[3][kFewPixels], blurred[5][kFewPixels];
  __device__ float* cam() { return blurred[0]; }
};

// The loss of an image with a map, and its gradient: write(i, slope) gets that to cell i of the CAM. All
// threads of the block call it, and have put the CAM into the memory. Afterwards nobody writes there, and
// `slopes` alone may still be read.
template <typename Write>
__device__ void compare_few(const SaliencyLossArgs& args, int64_t image, const float* taps,
                            const SsimConstants& constants, bool with_gradient, FewMemory& memory,
                            float* loss, Write write) {
  auto &x = memory.x, &y = memory.y;
  auto& slopes = memory.slopes;
  auto& blurred = memory.blurred;
  float* const cam = memory.cam();
  const Axis down(args.height, args.cam_height, args, 1);
  const Axis across(args.width, args.cam_width, args, 1);
  const int height = down.length, width = across.length, cam_width = across.cells;
  const int pixels = height * width, cells = down.cells * cam_width;
  const int positions = down.positions * across.positions;
  const bool similar = args.kind == SaliencyKind::ssim_l1;

  for (int i = threadIdx.x / kWarp; i < pixels; i += kThreads / kWarp) {
    const Bin rows = bin_of(i / width, static_cast<int>(args.target_height), height);
    const Bin columns = bin_of(i % width, static_cast<int>(args.target_width), width);
    const float mean = pooled<kWarp>(args, image, rows, columns, threadIdx.x % kWarp);
    if (threadIdx.x % kWarp == 0) y[i] = mean;
  }
  __syncthreads();

  float z[kOwn] = {}, human[kOwn] = {};
  float extremes[4] = {kInfinity, -kInfinity, kInfinity, -kInfinity};
  for_each_own(pixels, [&](int own, int i) {
    z[own] = enlarged(cam, cam_width, down.place(i / width), across.place(i % width));
    human[own] = y[i];
    extremes[0] = Min{}(extremes[0], z[own]);
    extremes[1] = Max{}(extremes[1], z[own]);
    extremes[2] = Min{}(extremes[2], human[own]);
    extremes[3] = Max{}(extremes[3], human[own]);
  });
  reduce_block<kThreads>(extremes, Min{}, Max{}, Min{}, Max{});
  const float low = extremes[0], high = extremes[1], range = high - low;
  if (is_flat(extremes[2], extremes[3])) {
    if (threadIdx.x == 0) *loss = 0;
    for (int i = threadIdx.x; with_gradient && i < cells; i += kThreads) write(i, 0.0f);
    return;
  }
  const bool flat = is_flat(low, high);
  const bool wants_gradient = with_gradient && !flat;
  float normal[kOwn] = {};
  for_each_own(pixels, [&](int own, int i) {
    normal[own] = flat ? 0.0f : (z[own] - low) / range;
    human[own] = (human[own] - extremes[2]) / (extremes[3] - extremes[2]);
    x[i] = normal[own] - constants.shift;
    y[i] = human[own] - constants.shift;
  });
  __syncthreads();

  float similarity = 0;
  if (similar) {
    for (int i = threadIdx.x; i < height * across.positions; i += kThreads) {
      const int row = i / across.positions;
      float sums[5] = {};
      for_each_tap(across, taps, i % across.positions, [&](float tap, int column) {
        const int at = row * width + column;
        float values[5];
        moments_of(column < 0 ? -constants.shift : x[at], column < 0 ? -constants.shift : y[at], values);
#pragma unroll
        for (int q = 0; q < 5; ++q) sums[q] += tap * values[q];
      });
#pragma unroll
      for (int q = 0; q < 5; ++q) blurred[q][i] = sums[q];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < positions; i += kThreads) {
      const int column = i % across.positions;
      float nothing[5], sums[5] = {};
      moments_of(-constants.shift, -constants.shift, nothing);
      for_each_tap(down, taps, i / across.positions, [&](float tap, int row) {
#pragma unroll
        for (int q = 0; q < 5; ++q)
          sums[q] += tap * (row < 0 ? nothing[q] : blurred[q][row * across.positions + column]);
      });
      const SsimMoments<float> moments{sums[0], sums[1], sums[2], sums[3], sums[4]};
      const SsimTerms<float> terms = ssim_terms(moments, constants);
      similarity += ssim_value(terms);
      if (!wants_gradient) continue;
      const SsimSlopes<float> of = ssim_slopes(moments, terms, -1.0f / positions);
      slopes[0][i] = of.x;
      slopes[1][i] = of.square;
      slopes[2][i] = of.cross;
    }
    __syncthreads();
    if (wants_gradient) {
      for (int i = threadIdx.x; i < height * across.positions; i += kThreads) {
        const int column = i % across.positions;
        float sums[3] = {};
        for_each_reached(down, taps, i / across.positions, [&](float weight, int position) {
#pragma unroll
          for (int f = 0; f < 3; ++f) sums[f] += weight * slopes[f][position * across.positions + column];
        });
#pragma unroll
        for (int f = 0; f < 3; ++f) blurred[f][i] = sums[f];
      }
      __syncthreads();
    }
  }

  // Sums: the similarity, the difference, dL/dx, x dL/dx, pixels at the minimum and at the maximum.
  float sums[6] = {similarity};
  float slope[kOwn] = {};
  for_each_own(pixels, [&](int own, int i) {
    const float difference = normal[own] - human[own];
    sums[1] += difference_value(difference, args.kind);
    if (!wants_gradient) return;
    slope[own] = difference_slope(difference, args.kind) / pixels;
    if (similar) {
      const int row = i / width;
      for_each_reached(across, taps, i % width, [&](float weight, int position) {
        const int at = row * across.positions + position;
        slope[own] += weight * (blurred[0][at] + 2.0f * x[i] * blurred[1][at] + y[i] * blurred[2][at]);
      });
    }
    sums[2] += slope[own];
    sums[3] += slope[own] * normal[own];
    sums[4] += z[own] == low;
    sums[5] += z[own] == high;
  });
  reduce_block<kThreads>(sums, Sum{}, Sum{}, Sum{}, Sum{}, Sum{}, Sum{});
  if (threadIdx.x == 0) *loss = (similar ? 1.0f - sums[0] / positions : 0.0f) + sums[1] / pixels;
  if (!with_gradient) return;

  float* const of_pixel = slopes[0];
  const ExtremeGradients extreme = extreme_gradients(sums[2], sums[3], range);
  for_each_own(pixels, [&](int own, int i) {
    float value = slope[own] / range;
    if (z[own] == low) value += extreme.low / sums[4];
    if (z[own] == high) value += extreme.high / sums[5];
    of_pixel[i] = flat ? 0.0f : value;
  });
  __syncthreads();
  for (int i = threadIdx.x; i < cells; i += kThreads) {
    const int k = i / cam_width, l = i % cam_width;
    const int last_row = first_pixel(k + 1, down.cells, height);
    const int last_column = first_pixel(l + 1, cam_width, width);
    float sum = 0;
    for (int row = first_pixel(k - 1, down.cells, height); row < last_row; ++row) {
      float of_row = 0;
      for (int column = first_pixel(l - 1, cam_width, width); column < last_column; ++column)
        of_row += share(across.place(column), l) * of_pixel[row * width + column];
      sum += share(down.place(row), k) * of_row;
    }
    write(i, sum);
  }
}

}  // namespace
}  // namespace sal_fast
