// Lanes of floats for the CPU kernels, in the vector extensions that GCC and Clang share: one source for
// AVX-512, AVX2 and whatever else the compiler targets (SSE2, NEON).
#pragma once

#include <cstring>
#include <utility>

#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "sal_fast/launch.h"
#include "sal_fast/math.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

#if defined(__AVX512F__)
constexpr int kLanes = 16;
#elif defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

using Vec = float __attribute__((vector_size(kLanes * sizeof(float))));
using Bits = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
using HalfBits = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// `size` rounded up to whole vectors.
constexpr int64_t padded(int64_t size) {
  return (size + kLanes - 1) / kLanes * kLanes;
}

// Calls run with a zero of the type of `dtype`.
template <typename Run>
inline auto with_scalar(DType dtype, Run run) {
  if (dtype == DType::float32) return run(float{});
  if (dtype == DType::float16) return run(Float16{});
  return run(BFloat16{});
}

inline Vec as_float(Bits bits) {
  return (Vec)bits;
}
inline Bits as_bits(Vec x) {
  return (Bits)x;
}

// If a is a constant, GCC turns `a > b ? a : b` into two instructions, to keep b when it is NaN, although the
// machine's max does exactly that. (The plain AVX-512 intrinsic warns of its own undefined vector; maskz does
// not.)
inline Vec larger(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_maskz_max_ps(0xffff, a, b);
#elif defined(__AVX2__)
  return _mm256_max_ps(a, b);
#else
  return a > b ? a : b;
#endif
}

inline Vec smaller(Vec a, Vec b) {
  return a < b ? a : b;
}

// exp(z) for kLowestExponent <= z <= 0 or NaN, of relative error 1e-7 + 1.4e-8 |z|. Exactly 1 at 0, since
// sums are rescaled by it many times, and exactly 0 at kLowestExponent.
// z / ln 2 = n + f with |f| <= 1/2; 2^f is a minimax polynomial, 2^n is made of its bits (n = -127 gives 0).
inline Vec exp_clamped(Vec z) {
  constexpr float kLog2e = 1.44269502f;
  constexpr float kShifter =
      12582912.0f + 127.0f;  // 1.5 * 2^23 rounds to an integer, 127 biases the exponent
  const Vec shifted = z * kLog2e + kShifter;
  const Vec n = shifted - kShifter;
  const Vec f = z * kLog2e - n;
  Vec power = 1.5595e-4f * f + 1.34067668e-3f;
  power = power * f + 9.61769186e-3f;
  power = power * f + 5.55031039e-2f;
  power = power * f + 2.40226522e-1f;
  power = power * f + 6.93147242e-1f;
  power = power * f + 1.0f;
  return power * as_float(as_bits(shifted) << 23);
}

inline Vec load(const float* p) {
  Vec x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

inline void store(Vec x, float* p) {
  std::memcpy(p, &x, sizeof x);
}

inline Vec load(const BFloat16* p) {
  HalfBits half;
  std::memcpy(&half, p, sizeof half);
  return as_float(__builtin_convertvector(half, Bits) << 16);
}

inline void store(Vec x, BFloat16* p) {
  const Bits bits = as_bits(x);
  const Bits rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to nearest, ties to even
  const HalfBits half = __builtin_convertvector(x == x ? rounded : Bits{} + 0x7fc0, HalfBits);
  std::memcpy(p, &half, sizeof half);
}

inline Vec load(const Float16* p) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__F16C__)
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  HalfBits half;
  std::memcpy(&half, p, sizeof half);
  const Bits bits = __builtin_convertvector(half, Bits);
  // The exponent is rebiased by a multiplication, which handles denormals too; inf and NaN keep all exponent
  // bits.
  const Vec magnitude = as_float((bits & 0x7fff) << 13) * 0x1p112f;
  const Bits special = (bits & 0x7c00) == 0x7c00 ? Bits{} + 0x7f800000 : Bits{};
  return as_float(as_bits(magnitude) | special | (bits & 0x8000) << 16);
#endif
}

inline void store(Vec x, Float16* p) {
#if defined(__AVX512F__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(0xffff, x, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#else
  const Bits bits = as_bits(x);
  const Bits magnitude = bits & 0x7fffffff;
  // Below 2^-14 adding 0.5 aligns the mantissa with a half's denormals and rounds it in hardware.
  const Bits denormal = as_bits(as_float(magnitude) + 0.5f) - 0x3f000000;
  const Bits normal = (magnitude - 0x38000000 + 0xfff + ((bits >> 13) & 1)) >> 13;
  Bits half = magnitude < 0x38800000 ? denormal : normal;
  half = magnitude >= 0x47800000 ? Bits{} + 0x7c00 : half;  // 65536 and above; 65520 rounds up by itself
  half = magnitude > 0x7f800000 ? Bits{} + 0x7e00 : half;
  const HalfBits out = __builtin_convertvector(half | (bits >> 16 & 0x8000), HalfBits);
  std::memcpy(p, &out, sizeof out);
#endif
}

using Words = uint16_t __attribute__((vector_size(2 * kLanes * sizeof(uint16_t))));

inline Words load_words(const uint8_t* p) {
#if defined(__AVX512F__)
  return (Words)_mm512_maskz_cvtepu8_epi16(0xffffffff,
                                           _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif defined(__AVX2__)
  return (Words)_mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  Words x;
  for (int i = 0; i < 2 * kLanes; ++i) x[i] = p[i];
  return x;
#endif
}

// Bytes as 0..255. (GCC makes __builtin_convertvector from bytes element by element.)
inline Vec load(const uint8_t* p) {
#if defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepu8_epi32(0xffff, bytes));
#elif defined(__AVX2__)
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#else
  Vec x;
  for (int i = 0; i < kLanes; ++i) x[i] = p[i];
  return x;
#endif
}

// Words as 0..65535.
inline Vec load(const uint16_t* p) {
  HalfBits words;
  std::memcpy(&words, p, sizeof words);
  using Whole = int32_t __attribute__((vector_size(kLanes * sizeof(int32_t))));
  return __builtin_convertvector(__builtin_convertvector(words, Whole), Vec);
}

// The number of each lane.
inline Bits lane_numbers() {
  Bits lane;
  for (int i = 0; i < kLanes; ++i) lane[i] = i;
  return lane;
}

// All bits are set in the first n lanes, and none in the others.
inline Bits first_lanes(int64_t n) {
  return (Bits)(lane_numbers() < Bits{} + static_cast<uint32_t>(n));
}

// The first n lanes of x, and the others of `rest`.
inline Vec first_lanes(Vec x, int64_t n, Vec rest = Vec{}) {
  if (n >= kLanes) return x;
  return lane_numbers() < Bits{} + static_cast<uint32_t>(n) ? x : rest;
}

// The first n > 0 values; the other lanes are 0.
template <typename scalar>
inline Vec load_first(const scalar* p, int64_t n) {
  if (n >= kLanes) return load(p);
  scalar lanes[kLanes] = {};
  std::memcpy(lanes, p, n * sizeof(scalar));
  return load(lanes);
}

inline Vec load_first(const float* p, int64_t n) {
  if (n >= kLanes) return load(p);
#if defined(__AVX512F__)
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
#elif defined(__AVX2__)
  return _mm256_maskload_ps(p, (__m256i)first_lanes(n));
#else
  float lanes[kLanes] = {};
  std::memcpy(lanes, p, n * sizeof(float));
  return load(lanes);
#endif
}

// The same of values that are `stride` elements apart.
template <typename scalar>
inline Vec load_strided(const scalar* p, int64_t stride, int64_t n) {
  if (stride == 1) return load_first(p, n);
  scalar lanes[kLanes] = {};
  for (int64_t i = 0; i < kLanes && i < n; ++i) lanes[i] = p[i * stride];
  return load(lanes);
}

// The first n values; the other lanes are -inf, which adds nothing to a sum of exponentials.
template <typename scalar>
inline Vec load_padded(const scalar* p, int64_t n) {
  const Vec nothing = Vec{} - kInfinity;
  return n > 0 ? first_lanes(load_first(p, n), n, nothing) : nothing;
}

template <typename scalar>
inline void store_partial(Vec x, scalar* p, int64_t n) {
  if (n >= kLanes) return store(x, p);
  scalar lanes[kLanes];
  store(x, lanes);
  std::memcpy(p, lanes, n * sizeof(scalar));
}

// The lanes of a, then those of b, with these numbers.
template <size_t... lane>
inline Vec chosen_lanes(Vec a, Vec b) {
#if defined(__clang__) || __GNUC__ >= 12
  return __builtin_shufflevector(a, b, lane...);
#else
  return __builtin_shuffle(a, b, Bits{lane...});
#endif
}

// Exchanges the lanes of `a` whose number has the bit `step` with those of `b` that do not have it.
template <int step, size_t... lane>
inline void exchange_lanes(Vec& a, Vec& b, std::index_sequence<lane...>) {
  const Vec first = chosen_lanes<(lane & step ? kLanes + lane - step : lane)...>(a, b);
  b = chosen_lanes<(lane & step ? kLanes + lane : lane + step)...>(a, b);
  a = first;
}

// Lane j of row i becomes lane i of row j.
template <int step = kLanes / 2>
inline void transpose(Vec (&rows)[kLanes]) {
  for (int i = 0; i < kLanes; ++i)
    if (!(i & step)) exchange_lanes<step>(rows[i], rows[i + step], std::make_index_sequence<kLanes>());
  if constexpr (step > 1) transpose<step / 2>(rows);
}

// The last n of the values before `end`, of which there are at least kLanes. The other lanes are -inf.
template <typename scalar>
inline Vec load_last(const scalar* end, int64_t n) {
  const Bits first = Bits{} + static_cast<uint32_t>(kLanes - n);
  return lane_numbers() >= first ? load(end - kLanes) : Vec{} - kInfinity;
}

// This is a typedef because GCC drops the attribute from a `using` that depends on a template parameter.
template <typename Lanes>
struct HalfOf {
  typedef float type __attribute__((vector_size(sizeof(Lanes) / 2)));
};

// Combines the lanes by halves.
template <typename Lanes, typename Combine>
inline float fold(Lanes x, Combine combine) {
  if constexpr (sizeof(Lanes) == 4 * sizeof(float)) {
    return combine(combine(x[0], x[2]), combine(x[1], x[3]));
  } else {
    typename HalfOf<Lanes>::type low, high;
    std::memcpy(&low, &x, sizeof low);
    std::memcpy(&high, reinterpret_cast<const char*>(&x) + sizeof low, sizeof high);
    return fold(combine(low, high), combine);
  }
}

inline float sum(Vec x) {
  return fold(x, [](auto a, auto b) { return a + b; });
}

// The largest lane. No lane is NaN.
inline float max(Vec x) {
  return fold(x, [](auto a, auto b) { return a > b ? a : b; });
}

// a b + c, rounded once in every build.
inline Vec fused(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__FMA__)
  return _mm256_fmadd_ps(a, b, c);
#else
  for (int i = 0; i < kLanes; ++i) c[i] = fmaf(a[i], b[i], c[i]);
  return c;
#endif
}

// The same, but rounded twice where the machine has no instruction for it.
inline Vec multiply_add(Vec a, Vec b, Vec c) {
#if defined(__FMA__)
  return fused(a, b, c);
#else
  return a * b + c;
#endif
}

// Rounded towards 0. Lanes that no int32 holds give 0x80000000.
inline Bits as_whole(Vec x) {
#if defined(__AVX512F__)
  return (Bits)_mm512_maskz_cvttps_epi32(0xffff, x);
#elif defined(__AVX2__)
  return (Bits)_mm256_cvttps_epi32(x);
#else
  Bits whole;
  for (int i = 0; i < kLanes; ++i)
    whole[i] = fabsf(x[i]) < 0x1p31f ? static_cast<uint32_t>(static_cast<int32_t>(x[i])) : 0x80000000u;
  return whole;
#endif
}

// Bit i: lane i of a comparison's result.
inline uint32_t set_lanes(Bits mask) {
#if defined(__AVX512DQ__)
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)mask));
#else
  uint32_t set = 0;
  for (int i = 0; i < kLanes; ++i) set |= (mask[i] & 1) << i;
  return set;
#endif
}

// Bit i: a > b in lane i. (GCC makes vectors of AVX-512's masks and masks of those again.)
inline uint32_t lanes_above(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
#else
  return set_lanes((Bits)(a > b));
#endif
}

// Bit i: a >= b in lane i.
inline uint32_t lanes_from(Vec a, Vec b) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
#else
  return set_lanes((Bits)(a >= b));
#endif
}

// Whether any lane of a comparison's result is set.
template <typename Mask>
inline bool any(Mask mask) {
  uint64_t words[sizeof(Mask) / sizeof(uint64_t)];
  std::memcpy(words, &mask, sizeof mask);
  uint64_t set = 0;
  for (const uint64_t word : words) set |= word;
  return set != 0;
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
