// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: the map is read, the mask is written.
#include <type_traits>

#include "parallel.h"
#include "sal_fast/launch/topn.h"
#include "topn_select.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

template <typename scalar>
struct MapRows {
  const TopnMaskArgs& args;
  const scalar* map;
  float* pixels;
  int64_t height = args.height, width = args.width, column_stride = args.column_stride;

  const float* row(int64_t i) const {
    const scalar* values = map + i * args.row_stride;
    if constexpr (std::is_same_v<scalar, float>)
      if (column_stride == 1 && width % kWord == 0) return values;
    for (int64_t x = 0; x < width; x += kLanes)
      store(load_strided(values + x * column_stride, column_stride, width - x), pixels + x);
    return ended(pixels, width);
  }
};

template <typename scalar>
void mask_images(const TopnMaskArgs& args, int64_t begin, int64_t end, const SelectMemory& memory) {
  const int64_t area = args.height * args.width, words = words_of(args.width);
  for (int64_t image = begin; image < end; ++image) {
    const scalar* const map = static_cast<const scalar*>(args.maps) + image * args.image_stride;
    const MapRows<scalar> rows{args, map, memory.pixels};
    const int64_t n = args.counts ? args.counts[image * args.counts_stride] : args.count;
    const Extremes found = extremes(rows, {-kInfinity, kInfinity});  // NaN is not among them
    args.valid[image] = n >= 0 && n <= area && found.count == area;
    const Cut cut = args.valid[image] ? top(rows, found.range, n, memory) : kNothing;
    if (args.out_type == MaskType::bits) {
      uint32_t* out = static_cast<uint32_t*>(args.out) + image * args.height * words;
      for_each_word(rows, cut, [&](int64_t i, int64_t w, uint32_t bits) { out[i * words + w] = bits; });
    } else {
      uint8_t* out = static_cast<uint8_t*>(args.out) + image * area;
      for_each_word(rows, cut, [&](int64_t i, int64_t w, uint32_t bits) {
        uint8_t* pixels = out + i * args.width + w * kWord;
        const int64_t count = args.width - w * kWord;
        uint8_t bytes[kWord];
        unpack_word(bits, bytes);
        std::memcpy(pixels, bytes, count < kWord ? count : kWord);
      });
    }
  }
}

}  // namespace

void topn_mask_cpu(const TopnMaskArgs& args, int threads) {
  const int64_t size = SelectMemory(args.width, nullptr).arena.used();
  parallel_for(args.images, 4 * args.height * args.width, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(size);
    const SelectMemory memory(args.width, scratch);
    with_scalar(args.dtype, [&](auto zero) { mask_images<decltype(zero)>(args, begin, end, memory); });
  });
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
