// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: the map is read, the mask is written.
#include <type_traits>

#include "topn_select.h"
// This include follows topn_select.h, which opens this build's namespace.
#include "topn_rows.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

template <typename scalar>
struct MapRows {
  const scalar* map;
  int64_t height, width, row_stride, column_stride;
  float* memory;

  const float* row(int64_t i) const {
    const scalar* values = map + i * row_stride;
    if constexpr (std::is_same_v<scalar, float>)
      if (column_stride == 1 && width % kWord == 0) return values;
    for (int64_t x = 0; x < width; x += kLanes) store(lanes(values, x), memory + x);
    return ended(memory, width);
  }

 private:
  Vec lanes(const scalar* values, int64_t x) const {
    if (column_stride == 1) return load_first(values + x, width - x);
    scalar gathered[kLanes] = {};
    for (int64_t j = 0; j < kLanes && x + j < width; ++j) gathered[j] = values[(x + j) * column_stride];
    return load(gathered);
  }
};

template <typename scalar>
void mask_images(const TopnMaskArgs& args, int64_t begin, int64_t end, uint32_t* memory) {
  const SelectMemory select(memory);
  float* const row = reinterpret_cast<float*>(memory + SelectMemory::kWords);
  const int64_t area = args.height * args.width, words = words_of(args.width);
  for (int64_t image = begin; image < end; ++image) {
    const MapRows<scalar> rows{static_cast<const scalar*>(args.maps) + image * args.image_stride,
                               args.height,
                               args.width,
                               args.row_stride,
                               args.column_stride,
                               row};
    const int64_t n = args.counts ? args.counts[image * args.counts_stride] : args.count;
    const Extremes found = extremes(rows, {-kInfinity, kInfinity});  // NaN is not among them
    args.valid[image] = n >= 0 && n <= area && found.count == area;
    const Cut cut = args.valid[image] ? top(rows, found.range, n, select) : kNothing;
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

}  // namespace

int64_t topn_mask_memory(int64_t width) {
  return SelectMemory::kWords + row_floats(width);
}

void topn_mask_rows(const TopnMaskArgs& args, int64_t begin, int64_t end, uint32_t* memory) {
  with_scalar(args.dtype, [&](auto zero) { mask_images<decltype(zero)>(args, begin, end, memory); });
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
