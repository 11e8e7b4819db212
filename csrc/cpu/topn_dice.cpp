// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: the mask and the CAM are read once.
#include <vector>

#include "parallel.h"
#include "topn_select.h"
// topn_select.h comes first: the templates below find its overloads by ordinary lookup.
#include "sal_fast/enlarge.h"
#include "sal_fast/launch/topn.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

// Tables of the enlargement, which are the same for all images.
struct Tables {
  explicit Tables(const TopnDiceArgs& args)
      : rows(args.height), weights(args.width + kWord), first(args.cam_width + 1) {
    const auto cam_height = static_cast<int>(args.cam_height), height = static_cast<int>(args.height);
    const auto cam_width = static_cast<int>(args.cam_width), width = static_cast<int>(args.width);
    for (int y = 0; y < height; ++y) rows[y] = between(y, cam_height, height);
    for (int x = 0; x < width; ++x) weights[x] = between(x, cam_width, width).weight;
    for (int c = 0; c <= cam_width; ++c) first[c] = first_pixel(c, cam_width, width);
  }
  std::vector<Between> rows;
  std::vector<float> weights;  // of each column, and a word behind
  std::vector<int32_t> first;  // the first column of each cell, and the end behind
};

// Memory of one thread.
struct Buffers : SelectMemory {
  Buffers(const TopnDiceArgs& args_, float* memory) : SelectMemory(args_.width, memory), args(args_) {}
  const TopnDiceArgs& args;
  uint32_t* in_mask = arena.words(kMostCandidates);  // of the candidates: all bits or none
  // [height, words_of(width)], and a word behind
  uint32_t* mask = arena.words(args.height * words_of(args.width));
  float* cells = arena.row(args.cam_height * args.cam_width);  // the CAM
  Rows lines = arena.rows(2, args.cam_width + 1);              // see EnlargedRows
};

struct EnlargedRows {
  const TopnDiceArgs& args;
  const Tables& tables;
  const Buffers& buffers;
  int64_t height = args.height, width = args.width, cam_width = args.cam_width;

  // The values that the pixels of row i blend, cell by cell, with the last one repeated behind. Two rows are
  // kept.
  const float* values(int64_t i) const {
    const Between& at = tables.rows[i];
    const float* const top = buffers.cells + at.cell * cam_width;
    const float* const bottom = buffers.cells + at.next * cam_width;
    const Vec weight = Vec{} + at.weight;
    const int64_t count = cam_width;  // fields are copied: the compiler reads them again behind every store
    float* const out = buffers.lines[i % 2];
    for (int64_t c = 0; c < count; c += kLanes) {
      const Vec a = load(top + c);
      store(fused(weight, load(bottom + c) - a, a), out + c);
    }
    out[count] = out[count - 1];
    return out;
  }

  // Goes pair by pair. What a vector writes past the columns of a pair is written again by those that follow.
  const float* row(int64_t i) const {
    const float* const blended = values(i);
    const float* const weights = tables.weights.data();
    const int32_t* const first = tables.first.data();
    const int64_t count = cam_width;
    float* const out = buffers.pixels;
    for (int64_t c = 0; c < count; ++c) {
      const Vec value = Vec{} + blended[c], step = Vec{} + (blended[c + 1] - blended[c]);
      const int64_t end = first[c + 1];
      for (int64_t x = first[c]; x < end; x += kLanes) store(fused(load(weights + x), step, value), out + x);
    }
    return ended(out, width);
  }
};

// The 32 bits from bit x on.
inline uint32_t bits_from(const uint32_t* words, int64_t x) {
  const uint32_t* const at = words + x / kWord;
  return static_cast<uint32_t>((at[0] | static_cast<uint64_t>(at[1]) << kWord) >> x % kWord);
}

struct Split {
  Counts counts;
  int64_t hits;  // pixels above the range that are in the mask
};

// collect in row-major order, with the hits: which candidates are in the mask, and how many above them. In a
// row no pixel lies beyond the two values that it blends (the largest weight is further from 1 than rounding
// reaches), and most of those pairs lie on one side of a narrow range.
Split split(const EnlargedRows& rows, Range range, const Buffers& buffers) {
  const int64_t words = words_of(rows.width);
  const int32_t* const first = rows.tables.first.data();
  const float* const weights = rows.tables.weights.data();
  float* const candidates = buffers.candidates;
  float* const in_mask = reinterpret_cast<float*>(buffers.in_mask);
  const Vec low = Vec{} + range.low, high = Vec{} + range.high;
  constexpr uint32_t kAllLanes = (1u << kLanes) - 1;
  const Bits lane = lane_numbers();
  Counts counts;
  int64_t hits = 0;
  const float* following = rows.values(0);
  for (int64_t i = 0; i < rows.height; ++i) {
    const float* const values = following;
    if (i + 1 < rows.height)
      following = rows.values(i + 1);  // ahead: what is loaded at once waits for its store
    const uint32_t* const mask = buffers.mask + i * words;
    for (int64_t group = 0; group < rows.cam_width; group += kWord) {
      uint32_t whole = 0, crossed = 0;  // pairs above the range; those that are not on one side
      for (int64_t c = group, bit = 0; bit < kWord && c < rows.cam_width; c += kLanes, bit += kLanes) {
        const Vec here = load(values + c), next = load(values + c + 1);
        whole |= lanes_above(smaller(here, next), high) << bit;
        crossed |= lanes_from(larger(here, next), low) << bit;
      }
      const uint32_t cells = first_pixels(rows.cam_width - group);
      whole &= cells;
      crossed &= cells & ~whole;
      for (; whole != 0; whole &= whole - 1) {
        const int64_t c = group + __builtin_ctz(whole);
        counts.above += first[c + 1] - first[c];
        for (int64_t x = first[c]; x < first[c + 1]; x += kWord)
          hits += count_bits(bits_from(mask, x) & first_pixels(first[c + 1] - x));
      }
      for (; crossed != 0; crossed &= crossed - 1) {
        const int64_t c = group + __builtin_ctz(crossed), end = first[c + 1];
        const Vec value = Vec{} + values[c], step = Vec{} + (values[c + 1] - values[c]);
        for (int64_t x = first[c]; x < end; x += kWord) {
          uint32_t above = 0, at_least = 0;
          for (int j = 0; j < kWord; j += kLanes) {
            const Vec pixels = fused(load(weights + x + j), step, value);
            above |= lanes_above(pixels, high) << j;
            at_least |= lanes_from(pixels, low) << j;
          }
          const uint32_t these = first_pixels(end - x), of_mask = bits_from(mask, x);
          above &= these;
          const uint32_t inside = at_least & these & ~above;
          counts.above += count_bits(above);
          hits += count_bits(above & of_mask);
          if (inside == 0) continue;
          for (int j = 0; j < kWord; j += kLanes) {
            const uint32_t set = inside >> j & kAllLanes;
            if (counts.inside <= kMostCandidates) {
              compress(fused(load(weights + x + j), step, value), set, candidates + counts.inside);
              const Bits lanes = (Bits)(((Bits{} + (of_mask >> j)) >> lane & 1) != 0);
              compress(as_float(lanes), set, in_mask + counts.inside);
            }
            counts.inside += count_bits(set);
          }
        }
      }
    }
  }
  if (counts.inside <= kMostCandidates) store(Vec{} + kNaN, candidates + counts.inside);
  return {counts, hits};
}

// How many of the top n pixels are in the mask.
int64_t hits_of(const EnlargedRows& rows, Range range, int64_t n, const Buffers& buffers) {
  const int64_t area = rows.height * rows.width;
  if (n == 0 || n == area) return n;
  const Range near = guess(rows, range, n, buffers);
  const Split found = split(rows, near, buffers);
  const Counts counts = found.counts;
  int64_t hits = found.hits;
  if (!counts.hold(n)) {
    hits = 0;
    const uint32_t* mask = buffers.mask;
    for_each_word(rows, select(rows, range, n, area, buffers),
                  [&](int64_t, int64_t, uint32_t top) { hits += count_bits(top & *mask++); });
    return hits;
  }
  const float* const pixels = buffers.candidates;
  Cut cut = select(Candidates{counts.inside, pixels}, near, n - counts.above, counts.inside, buffers);
  for (int64_t k = 0; k < counts.inside; k += kLanes) {
    const Vec some = load(pixels + k), floor = Vec{} + cut.floor;
    Bits in_mask;
    std::memcpy(&in_mask, buffers.in_mask + k, sizeof in_mask);
    hits += count_bits(cut.take(lanes_above(some, floor), lanes_from(some, floor)) & set_lanes(in_mask));
  }
  return hits;
}

template <typename scalar>
void dice_images(const TopnDiceArgs& args, const Tables& tables, int64_t begin, int64_t end,
                 const Buffers& buffers) {
  const int64_t cells = args.cam_height * args.cam_width, words = words_of(args.width);
  const MaskRows masks(args.mask, args.height, args.width);
  const EnlargedRows rows{args, tables, buffers};
  buffers.mask[args.height * words] = 0;
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
    const int64_t n = masks.copy(image, buffers.mask);
    const int64_t hits = finite ? hits_of(rows, {low, high}, n, buffers) : 0;
    args.dice[image] = finite ? dice_of(hits, 2 * n, args.empty) : kNaN;
    args.hits[image] = hits;
    args.n[image] = n;
  }
}

}  // namespace

void topn_dice_cpu(const TopnDiceArgs& args, int threads) {
  const Tables tables(args);
  const int64_t memory = Buffers(args, nullptr).arena.used();
  parallel_for(args.images, 2 * args.height * args.width, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(memory);
    const Buffers buffers(args, scratch);
    with_scalar(args.dtype,
                [&](auto zero) { dice_images<decltype(zero)>(args, tables, begin, end, buffers); });
  });
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
