// Scalar pieces shared by the CUDA kernels and the CPU kernels. cpu/vec.h has the same names for lanes.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#ifdef __CUDACC__
#define SAL_FAST_HD __host__ __device__
#else
#define SAL_FAST_HD
#endif

// A CPU kernel is compiled once per instruction set. Each of those builds names a namespace of its own, so
// that the linker never merges an inline function of one with that of another.
#ifndef SAL_FAST_ISA
#define SAL_FAST_ISA common
#endif

namespace sal_fast {
inline namespace SAL_FAST_ISA {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// exp(z) counts as 0 from here down (1e-38, about the smallest normal float).
constexpr float kLowestExponent = -88.0f;

// In both, b is the result when either is NaN: these are the semantics of the machine's own min and max.
SAL_FAST_HD inline float larger(float a, float b) {
  return a > b ? a : b;
}
SAL_FAST_HD inline float smaller(float a, float b) {
  return a < b ? a : b;
}

constexpr float kFlat = 8 * std::numeric_limits<float>::epsilon();

// A range that is not above this is flat in any map, because its inverse may be infinite.
constexpr float kNoRange = std::numeric_limits<float>::min();

// Whether a map with these extremes is flat. False if one is NaN, and if the range is infinite.
SAL_FAST_HD inline bool is_flat(float low, float high) {
  const float range = high - low;
  return range <= larger(kFlat * larger(fabsf(low), fabsf(high)), kNoRange) && range < kInfinity;
}

// a b + c rounded once.
SAL_FAST_HD inline float fused(float a, float b, float c) {
  return fmaf(a, b, c);
}

// exp(z) for kLowestExponent <= z <= 0 or NaN, and exactly 0 at kLowestExponent.
SAL_FAST_HD inline float exp_clamped(float z) {
  return z <= kLowestExponent ? 0.0f : expf(z);
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
