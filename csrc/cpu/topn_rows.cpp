// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// An image is never in memory as a whole: every pass makes its rows again, which costs as much as reading
// them from the L2 cache. Passes over the pixels: the counts of bins, the keys of the bin that holds the N-th
// (few: the rest happens among them), the result. Derivation: sal_fast/ops/topn/README.md.
#include "mask_rows.h"
// vec.h comes first, in mask_rows.h: it opens this build's namespace, and the templates below find its
// overloads by ordinary lookup.
#include "sal_fast/enlarge.h"
#include "topn_rows.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

constexpr uint32_t kBins = 1 << 11;
constexpr int kCopies = 4;  // of the bins: neighbours, often of one value, do not wait for each other
constexpr int64_t kMostCandidates = 1 << 14;
constexpr int64_t kBinRow = kBins + 16;  // the bin behind the last takes what is out of range
constexpr int64_t kSlack = 16;           // words, of the widest vector

inline int64_t key_words(int64_t width) {
  return words_of(width) * kWord + kSlack;
}

// Memory of one thread.
struct Buffers {
  Buffers(uint32_t* memory, int64_t width, int64_t cam_height, int64_t cam_width)
      : keys(memory),
        mask(keys + key_words(width)),
        bins(mask + words_of(width)),
        candidates(bins + kCopies * kBinRow),
        cells(reinterpret_cast<float*>(candidates + kMostCandidates + kSlack)),
        line(cells + cam_height * cam_width + kSlack) {}
  static int64_t words(int64_t width, int64_t cam_height, int64_t cam_width) {
    return key_words(width) + words_of(width) + kCopies * kBinRow + kMostCandidates +
           (cam_height + 1) * cam_width + 3 * kSlack;
  }
  uint32_t* keys;        // a row
  uint32_t* mask;        // a row
  uint32_t* bins;        // [kCopies, kBinRow]
  uint32_t* candidates;  // keys
  float* cells;          // the CAM
  float* line;           // of the CAM, enlarged down
};

inline Bits load_keys(const uint32_t* p) {
  Bits x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

inline void store_keys(Bits x, uint32_t* p) {
  std::memcpy(p, &x, sizeof x);
}

// key_of of each lane.
inline Bits keys_of(Vec x) {
  const Bits bits = as_bits(x + 0.0f);
  const Bits negative = (Bits)(bits >= Bits{} + 0x80000000u);
  return bits ^ (negative | 0x80000000u);
}

// Rows of keys
// ------------------------------------------------------------------------------------------------

// Each has height, width and row(i): the keys of row i, valid until the next call, with a vector's room
// behind.

template <typename scalar>
struct MapRows {
  const scalar* map;
  int64_t height, width, row_stride, column_stride;
  uint32_t* keys;

  const uint32_t* row(int64_t i) const {
    const scalar* values = map + i * row_stride;
    for (int64_t x = 0; x < width; x += kLanes) store_keys(keys_of(lanes(values, x)), keys + x);
    return keys;
  }

 private:
  Vec lanes(const scalar* values, int64_t x) const {
    if (column_stride == 1) return load_first(values + x, width - x);
    scalar gathered[kLanes] = {};
    for (int64_t j = 0; j < kLanes && x + j < width; ++j) gathered[j] = values[(x + j) * column_stride];
    return load(gathered);
  }
};

struct EnlargedRows {
  const float* cells;
  int64_t cam_height, cam_width, height, width;
  const TopnTables& tables;
  float* line;
  uint32_t* keys;

  // Cell by cell: the columns of one blend the same two values. What a vector writes past its cell's columns
  // is written again by the cells that follow.
  const uint32_t* row(int64_t i) const {
    const Between at = between(static_cast<int>(i), static_cast<int>(cam_height), static_cast<int>(height));
    const float* top = cells + at.cell * cam_width;
    const float* bottom = cells + at.next * cam_width;
    for (int64_t c = 0; c < cam_width; c += kLanes) {
      const Vec a = load(top + c);
      store(fused(Vec{} + at.weight, load(bottom + c) - a, a), line + c);
    }
    for (int64_t c = 0; c < cam_width; ++c) {
      const float value = line[c], step = c + 1 < cam_width ? line[c + 1] - value : 0.0f;
      for (int64_t x = tables.first[c]; x < tables.first[c + 1]; x += kLanes)
        store_keys(keys_of(fused(load(tables.weights + x), Vec{} + step, Vec{} + value)), keys + x);
    }
    return keys;
  }
};

// A selection of keys, as one row.
struct Candidates {
  static constexpr int64_t height = 1;
  int64_t width;
  uint32_t* keys;
  const uint32_t* row(int64_t) const { return keys; }
};

// Calls visit(keys, in) for the vectors of a row; `in` marks those lanes that are pixels.
template <typename Visit>
void for_each_vector(const uint32_t* keys, int64_t width, Visit visit) {
  for (int64_t x = 0; x < width; x += kLanes) visit(load_keys(keys + x), first_lanes(width - x));
}

inline Bits lies_in(Bits keys, KeyRange range) {
  return (Bits)(keys - range.low <= Bits{} + (range.high - range.low));
}

// The lowest and the highest key within the range.
template <typename Rows>
KeyRange narrowed(const Rows& rows, KeyRange range) {
  Bits low = Bits{} + range.high, high = Bits{} + range.low;
  for (int64_t i = 0; i < rows.height; ++i) {
    const uint32_t* const row = rows.row(i);
    for (int64_t x = 0; x < rows.width; x += kLanes) {
      const Bits keys = load_keys(row + x);
      const Bits in = first_lanes(rows.width - x) & lies_in(keys, range);
      const Bits or_highest = keys | ~in, or_0 = keys & in;
      low = or_highest < low ? or_highest : low;
      high = or_0 > high ? or_0 : high;
    }
  }
  uint32_t lows[kLanes], highs[kLanes];  // a vector whose lanes are indexed is kept in memory all along
  store_keys(low, lows);
  store_keys(high, highs);
  KeyRange found{lows[0], highs[0]};
  for (int i = 1; i < kLanes; ++i) {
    found.low = lows[i] < found.low ? lows[i] : found.low;
    found.high = highs[i] > found.high ? highs[i] : found.high;
  }
  return found;
}

template <typename Rows>
void count_bins(const Rows& rows, KeyRange range, int shift, uint32_t* bins) {
  std::memset(bins, 0, kCopies * kBinRow * sizeof(uint32_t));
  for (int64_t i = 0; i < rows.height; ++i) {
    for_each_vector(rows.row(i), rows.width, [&](Bits keys, Bits in) {
      const Bits bin = in & lies_in(keys, range) ? (keys - range.low) >> shift : Bits{} + kBins;
      uint32_t of_lane[kLanes];
      store_keys(bin, of_lane);
      for (int lane = 0; lane < kLanes; ++lane) ++bins[lane % kCopies * kBinRow + of_lane[lane]];
    });
  }
  for (uint32_t bin = 0; bin < kBins; ++bin)
    for (int copy = 1; copy < kCopies; ++copy) bins[bin] += bins[copy * kBinRow + bin];
}

// Writes the keys of the range to `out`, a vector's room behind; returns their number.
template <typename Rows>
int64_t collect(const Rows& rows, KeyRange range, uint32_t* out) {
  uint32_t* const begin = out;
  for (int64_t i = 0; i < rows.height; ++i) {
    for_each_vector(rows.row(i), rows.width, [&](Bits keys, Bits in) {
      uint32_t set = set_lanes(in & lies_in(keys, range));
      if (set == 0) return;
#if defined(__AVX512F__)
      store_keys((Bits)_mm512_maskz_compress_epi32(static_cast<__mmask16>(set), (__m512i)keys), out);
      out += count_bits(set);
#else
      uint32_t of_lane[kLanes];
      store_keys(keys, of_lane);
      for (; set != 0; set &= set - 1) *out++ = of_lane[__builtin_ctz(set)];
#endif
    });
  }
  return out - begin;
}

// Which keys are in the top N: those above `floor`, and the first `ties` of those equal to it.
struct Cut {
  uint32_t floor;
  int64_t ties;
};

constexpr Cut kNothing{~0u, 0};
constexpr Cut kEverything{0, 0};

// The cut below the wanted-th largest of the `count` keys in the range; 1 <= wanted <= count.
template <typename Rows>
Cut select(const Rows& rows, KeyRange range, int64_t wanted, int64_t count, Buffers& buffers) {
  for (;;) {
    if (wanted == count) return {range.low - 1, 0};  // no pixel has the key 0
    if (range.low == range.high) return {range.low, wanted};
    const int shift = bin_shift(range, kBins);
    count_bins(rows, range, shift, buffers.bins);
    uint32_t bin = kBins - 1;
    for (; wanted > buffers.bins[bin]; --bin) wanted -= buffers.bins[bin];
    count = buffers.bins[bin];
    range = range_of_bin(range, bin, shift);
    if (wanted == count) continue;
    if (count <= kMostCandidates && rows.height > 1) {
      const Candidates few{collect(rows, range, buffers.candidates), buffers.candidates};
      return select(few, narrowed(few, range), wanted, count, buffers);
    }
    range = narrowed(rows, range);  // a bin of one value, as ReLU's zeros, is not divided further
  }
}

template <typename Rows>
Cut top(const Rows& rows, KeyRange range, int64_t n, Buffers& buffers) {
  const int64_t area = rows.height * rows.width;
  if (n <= 0) return kNothing;
  if (n >= area) return kEverything;
  return select(rows, range, n, area, buffers);
}

// The first n of the set bits.
inline uint32_t first_bits(uint32_t word, int64_t n) {
  while (count_bits(word) > n) word &= ~(0x80000000u >> __builtin_clz(word));
  return word;
}

// Calls visit(row, word, bits) for the top N as words, in row-major order.
template <typename Rows, typename Visit>
void for_each_word(const Rows& rows, Cut cut, Visit visit) {
  for (int64_t i = 0; i < rows.height; ++i) {
    const uint32_t* keys = rows.row(i);
    for (int64_t w = 0; w < words_of(rows.width); ++w) {
      uint32_t above = 0, tied = 0;
      for (int64_t j = 0; j < kWord; j += kLanes)
        above |= set_lanes((Bits)(load_keys(keys + w * kWord + j) > Bits{} + cut.floor)) << j;
      const uint32_t inside = first_pixels(rows.width - w * kWord);
      if (cut.ties > 0) {
        for (int64_t j = 0; j < kWord; j += kLanes)
          tied |= set_lanes((Bits)(load_keys(keys + w * kWord + j) == Bits{} + cut.floor)) << j;
        tied = first_bits(tied & inside, cut.ties);
        cut.ties -= count_bits(tied);
      }
      visit(i, w, (above & inside) | tied);
    }
  }
}

// The ops
// -----------------------------------------------------------------------------------------------------

template <typename scalar>
void mask_images(const TopnMaskArgs& args, int64_t begin, int64_t end, uint32_t* memory) {
  Buffers buffers(memory, args.width, 0, 0);
  const int64_t area = args.height * args.width, words = words_of(args.width);
  for (int64_t image = begin; image < end; ++image) {
    const MapRows<scalar> rows{static_cast<const scalar*>(args.maps) + image * args.image_stride,
                               args.height,
                               args.width,
                               args.row_stride,
                               args.column_stride,
                               buffers.keys};
    const int64_t n = args.counts ? args.counts[image * args.counts_stride] : args.count;
    const KeyRange range = area > 0 ? narrowed(rows, {0, ~0u}) : KeyRange{kLowestKey, kHighestKey};
    args.valid[image] = n >= 0 && n <= area && range.low >= kLowestKey && range.high <= kHighestKey;
    const Cut cut = args.valid[image] ? top(rows, range, n, buffers) : kNothing;
    if (args.out_type == MaskType::bits) {
      uint32_t* out = static_cast<uint32_t*>(args.out) + image * args.height * words;
      for_each_word(rows, cut, [&](int64_t i, int64_t w, uint32_t bits) { out[i * words + w] = bits; });
    } else {
      uint8_t* out = static_cast<uint8_t*>(args.out) + image * area;
      for_each_word(rows, cut, [&](int64_t i, int64_t w, uint32_t bits) {
        uint8_t* pixels = out + i * args.width + w * kWord;
        const int64_t count = args.width - w * kWord;
        uint8_t bytes[kWord];
        for (int j = 0; j < kWord; ++j) bytes[j] = bits >> j & 1;
        std::memcpy(pixels, bytes, count < kWord ? count : kWord);
      });
    }
  }
}

template <typename scalar>
void dice_images(const TopnDiceArgs& args, const TopnTables& tables, int64_t begin, int64_t end,
                 uint32_t* memory) {
  Buffers buffers(memory, args.width, args.cam_height, args.cam_width);
  const int64_t cells = args.cam_height * args.cam_width;
  const MaskRows masks(args.mask, args.height, args.width);
  const EnlargedRows rows{buffers.cells, args.cam_height, args.cam_width, args.height,
                          args.width,    tables,          buffers.line,   buffers.keys};
  for (int64_t image = begin; image < end; ++image) {
    const scalar* cam = static_cast<const scalar*>(args.cam) + image * cells;
    for (int64_t c = 0; c < cells; c += kLanes) store(load_first(cam + c, cells - c), buffers.cells + c);
    float low = buffers.cells[0], high = low;
    bool finite = true;
    for (int64_t c = 0; c < cells; ++c) {
      low = smaller(buffers.cells[c], low);
      high = larger(buffers.cells[c], high);
      finite = finite && fabsf(buffers.cells[c]) <= kLargestCell;
    }
    const int64_t n = masks.count(image, buffers.mask);
    int64_t hits = 0;
    if (finite && n > 0) {
      // No pixel lies beyond the cells it blends: the largest weight is further from 1 than rounding reaches.
      const Cut cut = top(rows, {key_of(low), key_of(high)}, n, buffers);
      const uint32_t* mask = nullptr;
      for_each_word(rows, cut, [&](int64_t i, int64_t w, uint32_t bits) {
        if (w == 0) mask = masks.row(image, i, buffers.mask);
        hits += count_bits(bits & mask[w]);
      });
    }
    args.dice[image] = finite ? dice_of(hits, 2 * n, args.empty) : kInfinity - kInfinity;
    args.hits[image] = hits;
    args.n[image] = n;
  }
}

}  // namespace

int64_t topn_memory(int64_t width, int64_t cam_height, int64_t cam_width) {
  return Buffers::words(width, cam_height, cam_width);
}

void topn_mask_rows(const TopnMaskArgs& args, int64_t begin, int64_t end, uint32_t* memory) {
  const auto run = args.dtype == DType::float32   ? mask_images<float>
                   : args.dtype == DType::float16 ? mask_images<Float16>
                                                  : mask_images<BFloat16>;
  run(args, begin, end, memory);
}

void topn_dice_rows(const TopnDiceArgs& args, const TopnTables& tables, int64_t begin, int64_t end,
                    uint32_t* memory) {
  const auto run = args.dtype == DType::float32   ? dice_images<float>
                   : args.dtype == DType::float16 ? dice_images<Float16>
                                                  : dice_images<BFloat16>;
  run(args, tables, begin, end, memory);
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
