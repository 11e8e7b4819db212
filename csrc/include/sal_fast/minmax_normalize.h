// (m - low) / (high - low) of a map, and its gradient. Derivation: sal_fast/ops/minmax_normalize/README.md.
#pragma once

#include "sal_fast/launch/minmax_normalize.h"
#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

// The extremes of the values seen so far; both NaN once a NaN was seen.
struct Extremes {
  float low = kInfinity;
  float high = -kInfinity;

  SAL_FAST_HD inline void add(float lower, float higher) {
    low = lower < low || lower != lower ? lower : low;
    high = higher > high || higher != higher ? higher : high;
  }
  SAL_FAST_HD inline bool flat() const { return is_flat(low, high); }

  // NaN if it is infinite, so that the whole map becomes NaN.
  SAL_FAST_HD inline float range() const {
    const float range = high - low;
    return range < kInfinity ? range : kInfinity - kInfinity;
  }
};

// Sums over a map with x = (m - low) / (high - low) and the incoming gradient g.
struct MapSums {
  float upstream = 0.0f;  // sum of g
  float weighted = 0.0f;  // sum of g x
  float lows = 0.0f;      // values equal to low; counted exactly up to 2^24
  float highs = 0.0f;
};

// The gradient to each value: upstream / range, and a share of the extremes' gradient if it is one.
struct MapGradient {
  Extremes map;
  float range;
  float low;   // for each value equal to the lowest
  float high;  // for each value equal to the highest

  SAL_FAST_HD inline MapGradient(Extremes extremes, MapSums sums)
      : map(extremes),
        range(extremes.range()),
        low((sums.weighted - sums.upstream) / range / sums.lows),
        high(-sums.weighted / range / sums.highs) {}

  SAL_FAST_HD inline float at(float m, float upstream) const {
    float gradient = upstream / range;
    if (m == map.low) gradient += low;
    if (m == map.high) gradient += high;
    return gradient;
  }
};

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
