// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: both masks are read once.
#include "sal_fast/launch/dice.h"
#include "mask_rows.h"
#include "parallel.h"
#include "scratch.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

namespace {

void dice_images(const DiceArgs& args, int64_t begin, int64_t end) {
  const int64_t height = args.first.height, width = args.first.width, words = words_of(width);
  const MaskRows first(args.first, height, width), second(args.second, height, width);
  const Scratch scratch(2 * words);
  uint32_t* const memory = scratch.words();
  for (int64_t image = begin; image < end; ++image) {
    int64_t both = 0, sizes = 0;
    for (int64_t i = 0; i < height; ++i) {
      const uint32_t* a = first.row(image, i, memory);
      const uint32_t* b = second.row(image, i, memory + words);
      for (int64_t w = 0; w < words; ++w) {
        both += count_bits(a[w] & b[w]);
        sizes += count_bits(a[w]) + count_bits(b[w]);
      }
    }
    args.dice[image] = dice_of(both, sizes, args.empty);
  }
}

}  // namespace

void dice_cpu(const DiceArgs& args, int threads) {
  const int64_t elements = args.first.height * words_of(args.first.width);
  const int64_t cost = 4 * elements;  // a word takes about as long as 4 elements elsewhere
  parallel_for(args.images, cost, threads,
               [&](int64_t begin, int64_t end) { dice_images(args, begin, end); });
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
