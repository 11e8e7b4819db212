// The bilinear enlargement of a CAM, one definition for every op that looks at its pixels. Sides of at most
// kMostSide.
#pragma once

#include "sal_fast/launch.h"
#include "sal_fast/math.h"

namespace sal_fast {

inline namespace SAL_FAST_ISA {

// The two cells of a side of `cells` between which a pixel of a side of `pixels` lies (half-pixel centres,
// clamped at the ends). The weights are exact quotients of integers, so that a side that is not enlarged is
// copied.
struct Between {
  int cell;
  int next;
  float weight;  // of next
};

SAL_FAST_HD inline Between between(int pixel, int cells, int pixels) {
  const int place = (2 * pixel + 1) * cells - pixels;  // in units of 1 / (2 pixels) of a cell
  if (place <= 0) return {0, 0, 0.0f};
  const int cell = place / (2 * pixels);
  if (cell + 1 >= cells) return {cell, cell, 0.0f};
  return {cell, cell + 1, static_cast<float>(place % (2 * pixels)) / static_cast<float>(2 * pixels)};
}

// The first pixel whose `cell` is `cell` or beyond.
SAL_FAST_HD inline int first_pixel(int cell, int cells, int pixels) {
  if (cell <= 0) return 0;
  if (cell >= cells) return pixels;
  return ((2 * cell + 1) * pixels + cells - 1) / (2 * cells);
}

// How much of a cell is in the pixel.
SAL_FAST_HD inline float share(const Between& at, int cell) {
  return (at.cell == cell ? 1.0f - at.weight : 0.0f) + (at.next == cell ? at.weight : 0.0f);
}

// This is an explicit fused multiply-add, so that every place that evaluates a pixel gets the same bits, and
// pixels can be compared with the extremes. It is monotone in the weight, and exact between equal values.
SAL_FAST_HD inline float blend(float a, float b, float weight) {
  return fmaf(weight, b - a, a);
}

// A pixel of the enlarged CAM, whose rows have `width` cells: along two rows of cells, then between them.
SAL_FAST_HD inline float enlarged(const float* cam, int width, const Between& row, const Between& column) {
  const float* top = cam + row.cell * width;
  const float* bottom = cam + row.next * width;
  return blend(blend(top[column.cell], top[column.next], column.weight),
               blend(bottom[column.cell], bottom[column.next], column.weight), row.weight);
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
