// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: the stored rows that a crop covers, and its result. A stored row is unpacked once, and further
// output rows of it are copies.
#include "mask_rows.h"
#include "parallel.h"
#include "scratch.h"
// vec.h, by way of mask_rows.h, comes first.
#include "sal_fast/crop.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

void unpack(const uint32_t* words, int64_t pixels, uint8_t* out) {
  int64_t x = 0;
  for (; x + kWord <= pixels; x += kWord) unpack_word(words[x / kWord], out + x);
  if (x == pixels) return;
  uint8_t last[kWord];
  unpack_word(words[x / kWord], last);
  std::memcpy(out + x, last, pixels - x);
}

// Row y of an image as bytes: its own memory, or `memory`.
const uint8_t* bytes_of(const Mask& masks, int64_t image, int64_t y, uint8_t* memory) {
  const int64_t offset = image * masks.image_stride + y * masks.row_stride;
  if (masks.type == MaskType::bytes) return static_cast<const uint8_t*>(masks.data) + offset;
  unpack(static_cast<const uint32_t*>(masks.data) + offset, masks.width, memory);
  return memory;
}

void copy(const CropMasksArgs& args, int64_t image, uint8_t* out) {
  for (int64_t y = 0; y < args.out_height; ++y, out += args.out_width) {
    const uint8_t* const row = bytes_of(args.masks, image, y, out);
    if (row != out) std::memcpy(out, row, args.out_width);
  }
}

// memory: a line of the result as uint16_t, and a stored one as bytes.
void crop(const CropMasksArgs& args, const Cropped& from, uint8_t* memory, uint8_t* out) {
  const auto height = static_cast<int>(args.masks.height), width = static_cast<int>(args.masks.width);
  const int64_t out_width = args.out_width;
  auto* const columns = reinterpret_cast<uint16_t*>(memory);
  uint8_t* const line = memory + out_width * sizeof(uint16_t);
  for (int x = 0; x < out_width; ++x) columns[x] = static_cast<uint16_t>(pixel_at(from.across, x, width));
  int held = -1;
  for (int y = 0; y < args.out_height; ++y, out += out_width) {
    const int row = pixel_at(from.down, y, height);
    if (row == held) {
      std::memcpy(out, out - out_width, out_width);
      continue;
    }
    held = row;
    const uint8_t* const stored = bytes_of(args.masks, from.row, row, line);
    for (int64_t x = 0; x < out_width; ++x) out[x] = stored[columns[x]];
  }
}

}  // namespace

void crop_masks_cpu(const CropMasksArgs& args, int threads) {
  static_assert(kMostSide <= 1 << 16, "columns are kept in 16 bits");
  const int64_t size = args.out_height * args.out_width, width = args.masks.width;
  const bool whole = !args.box && args.out_height == args.masks.height && args.out_width == width;
  parallel_for(args.batch, size, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch((args.out_width * sizeof(uint16_t) + width) / sizeof(float) + 1);
    for (int64_t b = begin; b < end; ++b) {
      uint8_t* const out = static_cast<uint8_t*>(args.out) + b * size;
      const Cropped from = cropped(args, args.masks.height, width, b);
      if (!from.valid) {
        std::memset(out, 0, size);
      } else if (whole) {
        copy(args, from.row, out);
      } else {
        crop(args, from, reinterpret_cast<uint8_t*>(scratch.words()), out);
      }
    }
  });
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
