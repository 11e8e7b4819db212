// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: both masks are read once.
#include "mask_rows.h"
#include "sal_fast/launch/dice.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

void dice_rows(const DiceArgs& args, int64_t begin, int64_t end, uint32_t* memory) {
  const int64_t height = args.first.height, width = args.first.width, words = words_of(width);
  const MaskRows first(args.first, height, width), second(args.second, height, width);
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

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
