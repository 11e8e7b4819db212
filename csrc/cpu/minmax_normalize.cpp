// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: each map is read and each result written once. Further reads of a map come from the cache.
#include "parallel.h"
#include "vec.h"
// vec.h comes first: the templates below find its overloads by ordinary lookup.
#include "sal_fast/minmax_normalize.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

constexpr int64_t kBlock = 32;  // vectors

// Calls visit(load_at, n, count) for the vectors of a map, where load_at reads `count` of its values.
template <typename Visit>
void for_each_vector(int64_t size, Visit visit) {
  int64_t n = 0;
  for (; n + kLanes <= size; n += kLanes) visit(n, [](const auto* p) { return load(p); }, kLanes);
  const int64_t left = size - n;
  if (left > 0) visit(n, [left](const auto* p) { return load_first(p, left); }, left);
}

template <typename scalar>
Extremes extremes(const scalar* map, int64_t size) {
  const Vec first = Vec{} + load_first(map, 1)[0];
  Vec low = first, high = first;
  Bits bad = (Bits)(first != first);
  const auto add = [&](Vec x) {
    low = x < low ? x : low;
    high = x > high ? x : high;
    bad |= (Bits)(x != x);
  };
  int64_t n = 0;
  for (; n + kLanes <= size; n += kLanes) add(load(map + n));
  if (n < size) add(first_lanes(load_first(map + n, size - n), size - n, first));
  Extremes map_extremes;
  for (int i = 0; i < kLanes; ++i) map_extremes.add(low[i], high[i]);
  if (any(bad)) map_extremes.low = map_extremes.high = 0.0f * kInfinity;
  return map_extremes;
}

template <typename scalar>
void forward(const MinmaxNormalizeArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const scalar* map = static_cast<const scalar*>(args.maps) + i * args.size;
    float* out = args.out + i * args.size;
    const Extremes of_map = extremes(map, args.size);
    if (of_map.flat()) {
      std::memset(out, 0, args.size * sizeof(float));
      continue;
    }
    const float range = of_map.range();
    for_each_vector(args.size, [&](int64_t n, auto load_at, int64_t count) {
      const Vec x = (load_at(map + n) - of_map.low) / range;
      store_partial(x, out + n, count);
    });
  }
}

template <typename scalar>
void backward(const MinmaxNormalizeBackwardArgs& args, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    const scalar* map = static_cast<const scalar*>(args.maps) + i * args.size;
    const float* upstream = args.upstream + i * args.size;
    scalar* grad = static_cast<scalar*>(args.grad) + i * args.size;
    const Extremes of_map = extremes(map, args.size);
    if (of_map.flat()) {
      std::memset(grad, 0, args.size * sizeof(scalar));  // +0 in each of the dtypes
      continue;
    }
    const float range = of_map.range();
    Vec total{}, weighted{}, lows{}, highs{};
    Vec block_total{}, block_weighted{};  // rounding grows with the number of terms
    for_each_vector(args.size, [&](int64_t n, auto load_at, int64_t count) {
      if (n % (kBlock * kLanes) == 0) {
        total += block_total;
        weighted += block_weighted;
        block_total = block_weighted = Vec{};
      }
      const Vec m = load_at(map + n), g = load_at(upstream + n);
      const Vec x = (m - of_map.low) / range;
      const Vec one = first_lanes(Vec{} + 1.0f, count);
      block_total += g;
      block_weighted += g * x;
      lows += m == Vec{} + of_map.low ? one : Vec{};
      highs += m == Vec{} + of_map.high ? one : Vec{};
    });
    const MapGradient gradient(
        of_map, {sum(total + block_total), sum(weighted + block_weighted), sum(lows), sum(highs)});
    for_each_vector(args.size, [&](int64_t n, auto load_at, int64_t count) {
      const Vec m = load_at(map + n);
      Vec g = load_at(upstream + n) / range;
      g += m == Vec{} + of_map.low ? Vec{} + gradient.low : Vec{};
      g += m == Vec{} + of_map.high ? Vec{} + gradient.high : Vec{};
      store_partial(g, grad + n, count);
    });
  }
}

}  // namespace

void minmax_normalize_cpu(const MinmaxNormalizeArgs& args, int threads) {
  parallel_for(args.count, args.size, threads, [&](int64_t begin, int64_t end) {
    with_scalar(args.dtype, [&](auto zero) { forward<decltype(zero)>(args, begin, end); });
  });
}

void minmax_normalize_backward_cpu(const MinmaxNormalizeBackwardArgs& args, int threads) {
  parallel_for(args.count, args.size, threads, [&](int64_t begin, int64_t end) {
    with_scalar(args.dtype, [&](auto zero) { backward<decltype(zero)>(args, begin, end); });
  });
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
