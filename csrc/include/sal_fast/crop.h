// The places of a crop's pixels in the stored image, and their colours.
//
// Places are integers, in units of 2^-32 of a stored pixel: every build and device finds the same neighbours
// and weights, and a float's 24 bits are all left to the weight. Derivation: sal_fast/ops/crop/README.md.
#pragma once

#include "sal_fast/enlarge.h"
#include "sal_fast/launch/crop.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

constexpr int kPlaceBits = 32;
constexpr int64_t kPixel = int64_t{1} << kPlaceBits;

struct Places {
  int64_t first;  // the centre of pixel 0, from the image's edge
  int64_t step;
  int64_t error;  // no place is further than this from where it should be
  bool valid;     // false for NaN and infinity
};

// The places of a side of `out` pixels that covers low..high of a side of `pixels`. An edge beyond kMostSide
// sides counts as kMostSide sides, so that int64 holds every place.
SAL_FAST_HD inline Places places_of(float low, float high, int64_t pixels, int64_t out) {
  constexpr auto kFarthest = static_cast<float>(kMostSide);
  if (!(fabsf(low) < kInfinity && fabsf(high) < kInfinity)) return {0, 0, 0, false};
  const double start = larger(smaller(low, kFarthest), -kFarthest);
  const double end = larger(smaller(high, kFarthest), -kFarthest);
  const auto size = static_cast<double>(pixels), one = static_cast<double>(kPixel);
  const double step = (end - start) * size / static_cast<double>(out);
  return {llrint((start * size + 0.5 * step) * one), llrint(step * one), out, true};
}

// Where the pixels of image b of a batch are.
struct Cropped {
  int64_t row;  // the stored image
  Places across;
  Places down;
  bool valid;
};

// Args: those of crop_images or crop_masks, whose stored images have this height and width.
template <typename Args>
SAL_FAST_HD inline Cropped cropped(const Args& args, int64_t height, int64_t width, int64_t b) {
  const float everything[] = {0.0f, 0.0f, 1.0f, 1.0f};
  const float* const box = args.box ? args.box + 4 * b : everything;
  const int64_t row = args.rows ? args.rows[b] : b;
  const Places across = places_of(box[0], box[2], width, args.out_width);
  const Places down = places_of(box[1], box[3], height, args.out_height);
  return {row, across, down, row >= 0 && row < args.stored && across.valid && down.valid};
}

// The two pixels of a side between which pixel i of the crop lies. `next` is `cell` if its weight is 0.
SAL_FAST_HD inline Between between(const Places& places, int i, int pixels) {
  const int64_t place = places.first + i * places.step - kPixel / 2;
  if (place <= 0) return {0, 0, 0.0f};
  if (place >= (pixels - 1) * kPixel) return {pixels - 1, pixels - 1, 0.0f};
  const auto cell = static_cast<int>(place >> kPlaceBits);
  const auto rest = static_cast<uint32_t>(place);
  return {cell, rest != 0 ? cell + 1 : cell, static_cast<float>(rest) * 0x1p-32f};
}

// The pixel of a side in which pixel i of the crop lies. A place that may be on a pixel's edge counts as on
// it.
SAL_FAST_HD inline int pixel_at(const Places& places, int i, int pixels) {
  const int64_t place = places.first + i * places.step + places.error;
  if (place <= 0) return 0;
  return place >= pixels * kPixel ? pixels - 1 : static_cast<int>(place >> kPlaceBits);
}

// One channel of the result, from the three of the pixel. `color` is a row of the affine map.
template <typename T>
SAL_FAST_HD inline T colored(T red, T green, T blue, const T* color) {
  return fused(red, color[0], fused(green, color[1], fused(blue, color[2], color[3])));
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
