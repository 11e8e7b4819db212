// Selects the N largest pixels by keys: integers in the order of the pixels' values.
//
// Let k be the N-th largest key of an image. Its top N are the keys above k and, of those equal to k, as many
// as are still needed, in row-major order. A radix select finds k: it counts the keys of a range in bins of a
// power of two, and the bin that holds the N-th becomes the next range. It ends early if all keys of a bin
// are needed, so that only ties are taken down to single keys.
#pragma once

#include <cstring>

#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

// A larger float has a larger key; -0 has that of 0.
SAL_FAST_HD inline uint32_t key_of(float x) {
  x += 0.0f;
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

SAL_FAST_HD inline float value_of(uint32_t key) {
  const uint32_t bits = key & 0x80000000u ? key & 0x7fffffffu : ~key;
  float x;
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

// The keys of -infinity and infinity; those of NaN lie outside.
constexpr uint32_t kLowestKey = 0x007fffffu;
constexpr uint32_t kHighestKey = 0xff800000u;

// The difference of two cells beyond this may not be a finite float. NaN and infinities count as beyond.
constexpr float kLargestCell = std::numeric_limits<float>::max() / 2;

// Both ends belong to the range.
struct KeyRange {
  uint32_t low;
  uint32_t high;
};

// How far to shift key - low so that fewer than `bins` values remain.
SAL_FAST_HD inline int bin_shift(KeyRange range, uint32_t bins) {
  int shift = 0;
  while ((range.high - range.low) >> shift >= bins) ++shift;
  return shift;
}

SAL_FAST_HD inline KeyRange range_of_bin(KeyRange range, uint32_t bin, int shift) {
  const uint32_t low = range.low + (bin << shift), last = (1u << shift) - 1;
  return {low, range.high - low < last ? range.high : low + last};
}

// The pixel of a side of `in` that stands for pixel i of a side of `out`: floor(i in / out), in integers.
SAL_FAST_HD inline int64_t nearest(int64_t i, int64_t in, int64_t out) {
  return in == out ? i : i * in / out;
}

// 2 |A and B| / (|A| + |B|), with the sizes' sum.
SAL_FAST_HD inline float dice_of(int64_t both, int64_t sizes, double empty) {
  return static_cast<float>(sizes > 0 ? 2.0 * static_cast<double>(both) / static_cast<double>(sizes) : empty);
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
