// The N-th largest pixel of an image, and the pixels above it.
//
// An image is never in memory as a whole. Every pass makes its rows again, which costs as much as reading
// them from the L2 cache. The first pass looks at some rows, for a guess of the N-th largest. The second sets
// aside the pixels near that guess, which are few, and counts those above; the search goes on among them. The
// last makes the result. Counting every pixel in bins costs several times as much, and happens only if the
// guess fails. Derivation: sal_fast/ops/topn/README.md.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>

#include "mask_rows.h"
#include "scratch.h"
// vec.h comes first, in mask_rows.h: it opens this build's namespace, and the templates below find its
// overloads by ordinary lookup.
#include "sal_fast/topn.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

constexpr uint32_t kBins = 1 << 11;
constexpr uint32_t kFewBins = 1 << 8;  // for a guess, and for candidates
constexpr int kCopies = 4;  // of the bins, so that neighbours of one value do not wait for each other
constexpr int64_t kMostCandidates = 1 << 14;
constexpr int64_t kFew = 1 << 6;         // So many candidates are put in order at once.
constexpr int64_t kLargeArea = 1 << 17;  // From so many pixels on a guess takes more bins.
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Memory of one thread.
struct SelectMemory {
  SelectMemory(int64_t width, float* memory) : arena(memory), pixels(arena.row(width + kWord)) {}
  Arena arena;
  float* pixels;  // of a row
  float* candidates = arena.row(kMostCandidates);
  float* chosen = arena.row(kMostCandidates);           // of the candidates
  uint32_t* bins = arena.words(kCopies * (kBins + 1));  // see Bins
};

// Rows of pixels
// ------------------------------------------------------------------------------------------------

// Each struct has height, width and row(i), which is valid until the next call. Behind the pixels of a row
// there is NaN up to a whole word; NaN lies in no range.

// `row`, which has room for a word more than its pixels, with NaN behind them.
inline const float* ended(float* row, int64_t width) {
  for (int64_t x = width; x < words_of(width) * kWord; x += kLanes) store(Vec{} + kNaN, row + x);
  return row;
}

// A selection of pixels, seen as one row.
struct Candidates {
  static constexpr int64_t height = 1;
  int64_t width;
  const float* pixels;
  const float* row(int64_t) const { return pixels; }
};

// Calls visit(pixels) for the vectors of row i.
template <typename Rows, typename Visit>
void for_each_vector(const Rows& rows, int64_t i, Visit visit) {
  const float* const row = rows.row(i);
  for (int64_t x = 0; x < rows.width; x += kLanes) visit(load(row + x));
}

// Ranges
// ------------------------------------------------------------------------------------------------

// Both ends belong to the range.
struct Range {
  float low;
  float high;
};

inline Bits lies_in(Vec pixels, Range range) {
  return (Bits)((pixels >= Vec{} + range.low) & (pixels <= Vec{} + range.high));
}

struct Extremes {
  Range range;    // of the pixels inside a range
  int64_t count;  // of them
};

template <typename Rows>
Extremes extremes(const Rows& rows, Range range) {
  Vec low = Vec{} + range.high, high = Vec{} + range.low;
  int64_t count = 0;
  for (int64_t i = 0; i < rows.height; ++i) {
    for_each_vector(rows, i, [&](Vec pixels) {
      const Bits inside = lies_in(pixels, range);
      low = smaller(inside ? pixels : low, low);
      high = larger(inside ? pixels : high, high);
      count += count_bits(set_lanes(inside));
    });
  }
  return {{-max(-low), max(high)}, count};
}

// Writes the marked lanes one behind the other, and anything into the rest of a vector.
inline void compress(Vec pixels, uint32_t set, float* out) {
#if defined(__AVX512F__)
  store(_mm512_maskz_compress_ps(static_cast<__mmask16>(set), pixels), out);
#else
  float of_lane[kLanes];
  store(pixels, of_lane);
  for (; set != 0; set &= set - 1) *out++ = of_lane[__builtin_ctz(set)];
#endif
}

struct Counts {
  int64_t above = 0;
  int64_t inside = 0;
  // Whether the n-th largest is among the candidates.
  bool hold(int64_t n) const { return n > above && n - above <= inside && inside <= kMostCandidates; }
};

// Counts the pixels above and inside the range. Those inside are written to `out`, if they are at most
// kMostCandidates; it has room for these and a vector. The rows may be `out` itself.
template <typename Rows>
Counts collect(const Rows& rows, Range range, float* out) {
  Counts counts;
  for (int64_t i = 0; i < rows.height; ++i) {
    for_each_vector(rows, i, [&](Vec pixels) {
      const uint32_t above = lanes_above(pixels, Vec{} + range.high);
      const uint32_t inside = lanes_from(pixels, Vec{} + range.low) & ~above;
      counts.above += count_bits(above);
      // There is no branch on whether there are any, because it would be hard to predict.
      compress(pixels, inside, out + std::min(counts.inside, kMostCandidates));
      counts.inside += count_bits(inside);
    });
  }
  if (counts.inside <= kMostCandidates) store(Vec{} + kNaN, out + counts.inside);
  return counts;
}

// The N-th largest
// ------------------------------------------------------------------------------------------------

// Counts how many pixels fall into each bin.
class Bins {
 public:
  Bins(uint32_t* memory, uint32_t bins) : counts_(memory), bins_(bins) {
    std::memset(counts_, 0, kCopies * (bins_ + 1) * sizeof(uint32_t));
  }
  // Counts one lane in `step`, from `first` on. Values that are not below `bins` are ignored.
  template <int step = 1>
  void add(Bits bin, int first = 0) {
    bin = bin < Bits{} + bins_ ? bin : Bits{} + bins_;
    uint32_t of_lane[kLanes];
    std::memcpy(of_lane, &bin, sizeof bin);
    for (int k = 0; k < kLanes / step; ++k) ++counts_[k % kCopies * (bins_ + 1) + of_lane[first + k * step]];
  }
  const uint32_t* sums() {
    for (int copy = 1; copy < kCopies; ++copy)
      for (uint32_t bin = 0; bin < bins_; ++bin) counts_[bin] += counts_[copy * (bins_ + 1) + bin];
    return counts_;
  }

 private:
  uint32_t* counts_;
  uint32_t bins_;
};

// The key of -0. No pixel has it, and as a bound -0 would let zeros in.
constexpr uint32_t kBelowZero = 0x7fffffffu;

// key_of of each lane.
inline Bits keys_of(Vec x) {
  const Bits bits = as_bits(x + 0.0f);
  const Bits negative = (Bits)(bits >= Bits{} + 0x80000000u);
  return bits ^ (negative | 0x80000000u);
}

// The first n of the set bits.
inline uint32_t first_bits(uint32_t word, int64_t n) {
  while (count_bits(word) > n) word &= ~(0x80000000u >> __builtin_clz(word));
  return word;
}

// The top N consists of the pixels above `floor`, and of the first `ties` pixels equal to it.
struct Cut {
  float floor;
  int64_t ties;

  // The top N among up to 32 pixels, given which are above and which are at least the floor. It must be
  // called in row-major order.
  uint32_t take(uint32_t above, uint32_t at_least) {
    if (ties <= 0) return above;
    const uint32_t tied = first_bits(at_least & ~above, ties);
    ties -= count_bits(tied);
    return above | tied;
  }
};

constexpr Cut kNothing{kInfinity, 0};
constexpr Cut kEverything{-kInfinity, std::numeric_limits<int64_t>::max()};

// The cut at the wanted-th largest of the `count` pixels in the range; 1 <= wanted <= count.
template <typename Rows>
Cut select(const Rows& rows, Range range, int64_t wanted, int64_t count, const SelectMemory& memory) {
  float* const chosen = memory.chosen;
  while (count > kFew) {
    const bool few = count <= kMostCandidates;
    if constexpr (!std::is_same_v<Rows, Candidates>)
      if (few) {
        collect(rows, range, chosen);
        return select(Candidates{count, chosen}, range, wanted, count, memory);
      }
    if (!few)
      range = extremes(rows, range).range;  // many of one value, as ReLU's zeros, are not divided further
    if (wanted == count || range.low == range.high) return {range.low, wanted};
    const KeyRange keys{key_of(range.low), key_of(range.high)};
    const uint32_t number = few ? kFewBins : kBins;
    const int shift = bin_shift(keys, number);
    Bins bins(memory.bins, number);
    for (int64_t i = 0; i < rows.height; ++i)
      for_each_vector(rows, i, [&](Vec pixels) {
        bins.add((keys_of(pixels) - keys.low) >> shift | ~lies_in(pixels, range));
      });
    const uint32_t* const counts = bins.sums();
    uint32_t bin = number - 1;
    for (; wanted > counts[bin]; --bin) wanted -= counts[bin];
    count = counts[bin];
    KeyRange of_bin = range_of_bin(keys, bin, shift);
    if (of_bin.high == kBelowZero) --of_bin.high;
    range = {value_of(of_bin.low), value_of(of_bin.high)};
  }
  collect(rows, range, chosen);
  // With a comparison of this build's own, because all builds share the library's functions of common types.
  std::nth_element(chosen, chosen + wanted - 1, chosen + count, [](float a, float b) { return a > b; });
  const float floor = chosen[wanted - 1];
  return {floor, wanted - std::count_if(chosen, chosen + wanted, [=](float x) { return x > floor; })};
}

// A narrow range that most likely holds the wanted-th largest pixel. One pixel in four of one row in eight is
// counted in bins of equal widths in value. The range reaches two standard deviations to either side of the
// place among these pixels, as if they had been drawn at random.
template <typename Rows>
Range guess(const Rows& rows, Range range, int64_t wanted, const SelectMemory& memory) {
  const int64_t area = rows.height * rows.width;
  const uint32_t number = area < kLargeArea ? kFewBins : kBins;
  const float width = (range.high - range.low) / static_cast<float>(number - 1);
  Bins bins(memory.bins, number);
  // A step of 8 1/4 rows reaches every place in cells of four pixels, and so does the first column.
  for (int64_t k = 0, i = 0; i < rows.height; ++k, i = k * 33 / 4) {
    const int first = static_cast<int>(k % 4);
    for_each_vector(rows, i, [&](Vec pixels) {
      bins.template add<4>(as_whole((pixels - range.low) * (1.0f / width)), first);
    });
  }
  const uint32_t* const counts = bins.sums();
  double sampled = 0;
  for (uint32_t bin = 0; bin < number; ++bin) sampled += counts[bin];
  const double share = static_cast<double>(wanted) / static_cast<double>(area), expected = share * sampled;
  const double most = sampled / static_cast<double>(area) * static_cast<double>(kMostCandidates / 4);
  const double margin = std::min(2 * std::sqrt(expected * (1 - share)) + 1, most);
  Range found = range;
  double above = 0;
  for (uint32_t bin = number - 1; bin > 0 && above < expected + margin; --bin) {
    const float edge = range.low + width * static_cast<float>(bin);
    above += counts[bin];
    if (above < expected - margin) found.high = edge;
    found.low = edge;
  }
  if (above < expected + margin) found.low = range.low;
  return found;
}

template <typename Rows>
Cut top(const Rows& rows, Range range, int64_t n, const SelectMemory& memory) {
  const int64_t area = rows.height * rows.width;
  if (n <= 0) return kNothing;
  if (n >= area) return kEverything;
  const Range near = guess(rows, range, n, memory);
  const Counts counts = collect(rows, near, memory.candidates);
  if (!counts.hold(n)) return select(rows, range, n, area, memory);
  return select(Candidates{counts.inside, memory.candidates}, near, n - counts.above, counts.inside, memory);
}

// Calls visit(row, word, bits) for the top N as words, in row-major order.
template <typename Rows, typename Visit>
void for_each_word(const Rows& rows, Cut cut, Visit visit) {
  const Vec floor = Vec{} + cut.floor;
  for (int64_t i = 0; i < rows.height; ++i) {
    const float* const row = rows.row(i);
    for (int64_t w = 0; w < words_of(rows.width); ++w) {
      uint32_t above = 0, at_least = 0;
      for (int64_t j = 0; j < kWord; j += kLanes) {
        const Vec pixels = load(row + w * kWord + j);
        above |= lanes_above(pixels, floor) << j;
        at_least |= lanes_from(pixels, floor) << j;
      }
      visit(i, w, cut.take(above, at_least));
    }
  }
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
