// Reductions over a block, in an order that depends on nothing but the number of threads.
#pragma once

#include <cstring>

#include "device.cuh"

namespace sal_fast {
namespace {

// The value of the lane whose number differs in the bits of `mask`, word by word.
template <typename Value>
__device__ Value shuffle(const Value& value, int mask) {
  using Word = std::conditional_t<alignof(Value) == 8, long long, unsigned>;
  Word words[sizeof(Value) / sizeof(Word)];
  static_assert(sizeof words == sizeof value);
  std::memcpy(words, &value, sizeof value);
#pragma unroll
  for (Word& word : words) word = __shfl_xor_sync(kAllLanes, word, mask);
  Value other;
  std::memcpy(&other, words, sizeof other);
  return other;
}

// Merges a value of each of kLanes neighbouring threads, and gives the result to all of them: kLanes is a
// power of two of at most a warp, or the block. All threads of the block call it.
template <int kLanes, typename Value, typename Merge>
__device__ Value merge_lanes(Value value, Merge merge_two) {
  constexpr int kInWarp = kLanes < kWarp ? kLanes : kWarp;
#pragma unroll
  for (int mask = kInWarp / 2; mask > 0; mask /= 2) value = merge_two(value, shuffle(value, mask));
  if constexpr (kLanes > kWarp) {
    constexpr int kWarps = kLanes / kWarp;
    // Bytes, because a __shared__ variable has no constructor.
    alignas(Value) __shared__ unsigned char storage[kWarps * sizeof(Value)];
    Value* const of_warp = reinterpret_cast<Value*>(storage);
    if (threadIdx.x % kWarp == 0) of_warp[threadIdx.x / kWarp] = value;
    __syncthreads();
    value = of_warp[0];
    for (int warp = 1; warp < kWarps; ++warp) value = merge_two(value, of_warp[warp]);
    __syncthreads();  // the next row writes here again
  }
  return value;
}

// Each values[i] of the block's kThreads threads, combined by combine[i] and given to all of them.
template <int kThreads, int count, typename... Combine>
__device__ void reduce_block(float (&values)[count], Combine... combine) {
  static_assert(sizeof...(combine) == count);
  struct Values {
    float at[count];
  } all;
  for (int i = 0; i < count; ++i) all.at[i] = values[i];
  all = merge_lanes<kThreads>(all, [=](Values a, const Values& b) {
    int i = 0;
    ((a.at[i] = combine(a.at[i], b.at[i]), ++i), ...);
    return a;
  });
  for (int i = 0; i < count; ++i) values[i] = all.at[i];
}

struct Sum {
  template <typename Value>
  __device__ Value operator()(Value a, Value b) const {
    return a + b;
  }
};
// NaN when either is.
struct Min {
  __device__ float operator()(float a, float b) const { return a < b || a != a ? a : b; }
};
struct Max {
  __device__ float operator()(float a, float b) const { return a > b || a != a ? a : b; }
};

}  // namespace
}  // namespace sal_fast
