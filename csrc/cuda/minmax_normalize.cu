// Bytes moved: each map is read and each result written once. Further reads of a map come from the L1 or L2
// cache. Not timed on a GPU yet.
#include "block.cuh"
#include "sal_fast/minmax_normalize.h"

namespace sal_fast {
namespace {

// A map is done by a warp, or by a block of its own.
constexpr int64_t kWarpSize = 1024;  // the largest map of a warp
constexpr int kWideThreads = 1024;
template <int kLanes>
constexpr int kThreads = kLanes == kWarp ? 256 : kLanes;

struct Merge {
  __device__ Extremes operator()(Extremes a, const Extremes& b) const {
    a.add(b.low, b.high);
    return a;
  }
  __device__ MapSums operator()(const MapSums& a, const MapSums& b) const {
    return {a.upstream + b.upstream, a.weighted + b.weighted, a.lows + b.lows, a.highs + b.highs};
  }
};

template <int kLanes, typename scalar>
__device__ Extremes extremes_of(const scalar* map, int64_t size, int lane) {
  Extremes extremes;
#pragma unroll 4
  for (int64_t n = lane; n < size; n += kLanes) {
    const float m = to_float(map[n]);
    extremes.add(m, m);
  }
  return merge_lanes<kLanes>(extremes, Merge{});
}

// Calls run(map, lane) for each map, with kLanes threads for a map. Threads past the last map take one of
// size 0, so that all threads reach every shuffle and barrier.
template <int kLanes, typename Run>
__device__ void for_each_map(int64_t count, Run run) {
  constexpr int kMaps = kThreads<kLanes> / kLanes;
  for (int64_t first = int64_t{blockIdx.x} * kMaps; first < count; first += int64_t{gridDim.x} * kMaps)
    run(first + threadIdx.x / kLanes, static_cast<int>(threadIdx.x % kLanes));
}

template <int kLanes, typename scalar>
__global__ void __launch_bounds__(kThreads<kLanes>)
    forward_kernel(const scalar* maps, int64_t count, int64_t size, float* out) {
  for_each_map<kLanes>(count, [&](int64_t i, int lane) {
    const scalar* const map = maps + i * size;
    const int64_t used = i < count ? size : 0;
    const Extremes extremes = extremes_of<kLanes>(map, used, lane);
    const float range = extremes.range();
    const bool flat = extremes.flat();
    for (int64_t n = lane; n < used; n += kLanes)
      out[i * size + n] = flat ? 0.0f : (to_float(map[n]) - extremes.low) / range;
  });
}

template <int kLanes, typename scalar>
__global__ void __launch_bounds__(kThreads<kLanes>)
    backward_kernel(const scalar* maps, int64_t count, int64_t size, const float* upstream, scalar* grad) {
  for_each_map<kLanes>(count, [&](int64_t i, int lane) {
    const scalar* const map = maps + i * size;
    const int64_t used = i < count ? size : 0;
    const Extremes extremes = extremes_of<kLanes>(map, used, lane);
    const float range = extremes.range();
    MapSums sums;
    for (int64_t n = lane; n < used; n += kLanes) {
      const float m = to_float(map[n]), g = upstream[i * size + n];
      sums.upstream += g;
      sums.weighted += g * ((m - extremes.low) / range);
      sums.lows += m == extremes.low;
      sums.highs += m == extremes.high;
    }
    const MapGradient gradient(extremes, merge_lanes<kLanes>(sums, Merge{}));
    const bool flat = extremes.flat();
    for (int64_t n = lane; n < used; n += kLanes) {
      const int64_t at = i * size + n;
      from_float(flat ? 0.0f : gradient.at(to_float(map[n]), upstream[at]), grad[at]);
    }
  });
}

// Calls run with a value of the maps' type, and the threads of a map.
template <typename Args, typename Run>
int dispatch(const Args& args, Run run) {
  if (args.count == 0 || args.size == 0) return cudaSuccess;
  return with_scalar(args.dtype, [&](auto zero) {
    with_flag(args.size <= kWarpSize, [&](auto narrow) {
      run(zero, std::integral_constant<int, narrow.value ? kWarp : kWideThreads>{});
    });
  });
}

}  // namespace

int minmax_normalize_cuda(const MinmaxNormalizeArgs& args, void* stream) {
  return dispatch(args, [&](auto zero, auto lanes) {
    using scalar = decltype(zero);
    constexpr int kLanes = lanes.value, kBlock = kThreads<kLanes>;
    SAL_FAST_LAUNCH((forward_kernel<kLanes, scalar>), blocks_for(args.count, kBlock / kLanes), kBlock, stream,
                    static_cast<const scalar*>(args.maps), args.count, args.size, args.out);
  });
}

int minmax_normalize_backward_cuda(const MinmaxNormalizeBackwardArgs& args, void* stream) {
  return dispatch(args, [&](auto zero, auto lanes) {
    using scalar = decltype(zero);
    constexpr int kLanes = lanes.value, kBlock = kThreads<kLanes>;
    SAL_FAST_LAUNCH((backward_kernel<kLanes, scalar>), blocks_for(args.count, kBlock / kLanes), kBlock,
                    stream, static_cast<const scalar*>(args.maps), args.count, args.size, args.upstream,
                    static_cast<scalar*>(args.grad));
  });
}

}  // namespace sal_fast
