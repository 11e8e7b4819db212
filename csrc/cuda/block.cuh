// Reductions over a block, in an order that depends on nothing but the number of threads.
#pragma once

#include "device.cuh"

namespace sal_fast {
namespace {

template <typename Value, typename Combine>
__device__ Value reduce_warp(Value value, Combine combine) {
#pragma unroll
  for (int mask = kWarp / 2; mask > 0; mask /= 2)
    value = combine(value, __shfl_xor_sync(kAllLanes, value, mask));
  return value;
}

// Each values[i] of the block's kThreads threads, combined by combine[i] and given to all of them.
template <int kThreads, int count, typename... Combine>
__device__ void reduce_block(float (&values)[count], Combine... combine) {
  static_assert(sizeof...(combine) == count);
  constexpr int kWarps = kThreads / kWarp;
  __shared__ float of_warp[count][kWarps];
  int i = 0;
  ((values[i] = reduce_warp(values[i], combine), ++i), ...);
  __syncthreads();  // the reduction before this one may still be read
  if (threadIdx.x % kWarp == 0)
    for (i = 0; i < count; ++i) of_warp[i][threadIdx.x / kWarp] = values[i];
  __syncthreads();
  i = 0;
  const auto finish = [&](auto combine_two) {
    float value = of_warp[i][0];
    for (int warp = 1; warp < kWarps; ++warp) value = combine_two(value, of_warp[i][warp]);
    values[i++] = value;
  };
  (finish(combine), ...);
}

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};
// NaN when either is.
struct Min {
  __device__ float operator()(float a, float b) const { return a < b || a != a ? a : b; }
};
struct Max {
  __device__ float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

template <int kThreads>
__device__ float sum_block(float value) {
  float values[1] = {value};
  reduce_block<kThreads>(values, Sum{});
  return values[0];
}

}  // namespace
}  // namespace sal_fast
