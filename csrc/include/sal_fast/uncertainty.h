// Uncertainty of a row of logits, from statistics gathered in one read.
//
// The functions that touch elements are templates over T: `float` in a CUDA thread, a vector of lanes in a
// CPU kernel. So the CPU build runs, and its tests verify, the formulas that the GPU runs. Derivation:
// sal_fast/ops/uncertainty/README.md.
#pragma once

#include "sal_fast/launch/uncertainty.h"
#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

// The statistics of the elements x seen so far, with z = x - max, that a row's uncertainty needs.
template <typename T>
struct RowStats {
  T max = T{} - kInfinity;
  T second = T{} - kInfinity;  // the second largest; equal to max when the largest occurs twice
  T others = T{};    // sum of exp(z) over all elements but one largest: 1 / p1 - 1 without cancellation
  T weighted = T{};  // sum of exp(z) * z; left at 0 unless kWeighted
};

// The shift that makes every exponent <= 0: 0 while nothing but -inf was seen, because -inf - -inf is NaN.
template <typename T>
SAL_FAST_HD inline T shift_of(T max) {
  return max == T{} - kInfinity ? T{} : max;
}

// x - shift. It is finite for x = -inf too, so that exp(z) * z is finite. NaN stays NaN.
template <typename T>
SAL_FAST_HD inline T exponent_of(T x, T shift) {
  return larger(T{} + kLowestExponent, x - shift);
}

template <bool kWeighted, typename T>
SAL_FAST_HD inline void add_term(RowStats<T>& stats, T x, T shift) {
  const T z = exponent_of(x, shift);
  const T weight = exp_clamped(z);
  stats.others += weight;
  if (kWeighted) stats.weighted += weight * z;
}

// Expresses the sums relative to `shift` >= stats.max. The caller sets stats.max.
template <bool kWeighted, typename T>
SAL_FAST_HD inline void rescale(RowStats<T>& stats, T shift) {
  const T z = exponent_of(stats.max, shift);
  const T factor = exp_clamped(z);
  if (kWeighted) stats.weighted = factor * (stats.weighted + z * stats.others);
  stats.others *= factor;
}

// Adds `count` elements. Each is compared with the largest so far, and the smaller of the two enters the
// sums: in the end every element but one largest. A NaN counts as the smaller, and so makes the sums NaN.
template <bool kWeighted, int count, typename T>
SAL_FAST_HD inline void add(RowStats<T>& stats, const T (&x)[count]) {
  T max = stats.max;
  T loser[count];
  for (int i = 0; i < count; ++i) {
    loser[i] = smaller(max, x[i]);
    max = larger(x[i], max);
    stats.second = larger(loser[i], stats.second);
  }
  const T shift = shift_of(max);
  rescale<kWeighted>(stats, shift);
  for (int i = 0; i < count; ++i) add_term<kWeighted>(stats, loser[i], shift);
  stats.max = max;
}

// The statistics of two disjoint sets of elements, together.
template <bool kWeighted>
SAL_FAST_HD inline RowStats<float> merge(RowStats<float> a, RowStats<float> b) {
  const float max = larger(a.max, b.max);
  const float loser = smaller(a.max, b.max);
  const float shift = shift_of(max);
  rescale<kWeighted>(a, shift);
  rescale<kWeighted>(b, shift);
  RowStats<float> both;
  both.max = max;
  both.second = larger(loser, larger(a.second, b.second));
  both.others = a.others + b.others;
  both.weighted = a.weighted + b.weighted;
  add_term<kWeighted>(both, loser, shift);
  return both;
}

// The result is NaN when the row holds NaN or +inf, or nothing but -inf.
SAL_FAST_HD inline float uncertainty_of(const RowStats<float>& row, Kind kind) {
  if (!(row.max > -kInfinity && row.max < kInfinity)) return 0.0f * kInfinity;
  const float total = 1.0f + row.others;
  if (kind == Kind::entropy) return log1pf(row.others) - row.weighted / total;
  if (kind == Kind::least_confidence) return row.others / total;
  return (row.others + exp_clamped(exponent_of(row.second, row.max))) / total;
}

// The gradient at x is exp(z) * (constant + slope * z), except at the largest and the second largest element.
struct RowGradient {
  float shift;
  float constant;
  float slope;
  float largest;  // margin and least confidence
  float second;   // margin
};

SAL_FAST_HD inline RowGradient gradient_of(const RowStats<float>& row, Kind kind, float upstream) {
  const float value = uncertainty_of(row, kind);
  const float p1 = 1.0f / (1.0f + row.others);
  const float scale = value == value ? upstream * p1 : value;
  if (kind == Kind::entropy) return {row.max, scale * row.weighted * p1, -scale, 0.0f, 0.0f};
  if (kind == Kind::least_confidence) return {row.max, scale * p1, 0.0f, -scale * value, 0.0f};
  const float weight = exp_clamped(exponent_of(row.second, row.max));
  return {row.max, scale * (1.0f - value), 0.0f, -scale * value, scale * weight * (2.0f - value)};
}

template <typename T>
SAL_FAST_HD inline T gradient_at(T x, const RowGradient& row) {
  const T z = exponent_of(x, T{} + row.shift);
  return exp_clamped(z) * (row.constant + row.slope * z);
}

// The lowest columns that hold the largest and the second largest, which get their gradients.
struct TopColumns {
  int64_t first = std::numeric_limits<int64_t>::max();
  int64_t second = std::numeric_limits<int64_t>::max();

  // Columns come in ascending order.
  SAL_FAST_HD inline void add(float x, int64_t column, const RowStats<float>& row) {
    if (x == row.max && column < first) {
      first = column;
    } else if (x == row.second && column < second) {
      second = column;
    }
  }
};

// If `tied`, the two largest are equal, so that the two lowest columns of all count.
SAL_FAST_HD inline TopColumns merge(TopColumns a, TopColumns b, bool tied) {
  TopColumns both;
  both.first = a.first < b.first ? a.first : b.first;
  both.second = a.second < b.second ? a.second : b.second;
  if (tied) {
    const int64_t loser = a.first < b.first ? b.first : a.first;
    if (loser < both.second) both.second = loser;
  }
  return both;
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
