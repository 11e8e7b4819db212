// Lanes of doubles. There are half as many of them as a Vec has floats.
#pragma once

#include "vec.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

constexpr int kDoubles = kLanes / 2;

using Doubles = double __attribute__((vector_size(kDoubles * sizeof(double))));
using Floats = float __attribute__((vector_size(kDoubles * sizeof(float))));  // as many

inline Doubles load(const double* p) {
  Doubles x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

inline void store(Doubles x, double* p) {
  std::memcpy(p, &x, sizeof x);
}

// kDoubles values as doubles.
inline Doubles load_doubles(const double* p) {
  return load(p);
}
inline Doubles load_doubles(const float* p) {
#if defined(__AVX512F__)
  return (Doubles)_mm512_maskz_cvtps_pd(0xff, _mm256_loadu_ps(p));
#else
  Floats x;
  std::memcpy(&x, p, sizeof x);
  return __builtin_convertvector(x, Doubles);
#endif
}

inline Floats as_floats(Doubles x) {
#if defined(__AVX512F__)
  return (Floats)_mm512_maskz_cvtpd_ps(0xff, (__m512d)x);
#else
  return __builtin_convertvector(x, Floats);
#endif
}

// The first n of them.
inline void store_first(Floats x, float* p, int64_t n) {
  if (n >= kDoubles) {
    std::memcpy(p, &x, sizeof x);
  } else {
    for (int64_t i = 0; i < n; ++i) p[i] = x[i];
  }
}

// a b + c. It is rounded once where the machine can do that.
inline Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
#if defined(__AVX512F__)
  return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// b is the result where either is NaN.
inline Doubles larger(Doubles a, Doubles b) {
  return a > b ? a : b;
}

// The first n lanes of x; the others are 0.
inline Doubles first_lanes(Doubles x, int64_t n) {
  for (int64_t i = n; i < kDoubles; ++i) x[i] = 0;
  return x;
}

#if defined(__AVX512F__)
// Lanes first.. of three vectors that stand one after the other. A load that crosses a line of the cache, as
// seven of eight do, takes longer than this shift of two registers.
template <int first>
inline Doubles neighbours(const Doubles (&at)[3]) {
  constexpr int kVector = first / kDoubles, kShift = first % kDoubles;
  if constexpr (kShift == 0)
    return at[kVector];
  else
    return (Doubles)_mm512_maskz_alignr_epi64(0xff, (__m512i)at[kVector + 1], (__m512i)at[kVector], kShift);
}
#endif

inline double sum(Doubles x) {
  double total = 0;
  for (int i = 0; i < kDoubles; ++i) total += x[i];
  return total;
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
