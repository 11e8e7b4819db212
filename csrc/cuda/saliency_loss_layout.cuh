// The kernels of the saliency loss share this: the steps for an image or a pixel, the sides of the loss, and,
// for the launches beyond 1024 pixels, the values that they hand on to each other and the tables that depend
// on sizes alone.
#pragma once

#include "block.cuh"
#include "blur.cuh"
#include "sal_fast/saliency_loss.h"

namespace sal_fast {
namespace {

constexpr int kThreads = 512;  // of the kernels with a block an image

__device__ bool has_map(const SaliencyLossArgs& args, int64_t image) {
  return !args.has_map || args.has_map[image];
}

// Writes the loss and the gradient of an image without a map.
__device__ void clear(const SaliencyLossArgs& args, int64_t image) {
  const int64_t cells = args.cam_height * args.cam_width;
  if (threadIdx.x == 0) args.values[image] = 0;
  if (args.grad)
    for (int64_t i = threadIdx.x; i < cells; i += kThreads) args.grad[image * cells + i] = 0;
}

// mse needs no window.
inline SaliencyLossArgs without_unused(SaliencyLossArgs args) {
  if (args.kind == SaliencyKind::mse) {
    args.window = 1;
    args.border = Border::valid;
  }
  return args;
}

__device__ float difference_value(float difference, SaliencyKind kind) {
  return kind == SaliencyKind::mse ? difference * difference : fabsf(difference);
}

__device__ float difference_slope(float difference, SaliencyKind kind) {
  if (kind == SaliencyKind::mse) return 2.0f * difference;
  return difference > 0 ? 1.0f : difference < 0 ? -1.0f : difference;  // 0, or NaN
}

// The gradient that a minimum and a maximum get, from a map's extremes and sums over pixels or cells.
struct ExtremeGradients {
  float low;
  float high;
};

__device__ ExtremeGradients extreme_gradients(float sum, float sum_times_x, float range) {
  return {-(sum - sum_times_x) / range, -sum_times_x / range};
}

// Half the threads of a tile of `ssim`, with twice the positions: much of a thread's work is done once.
constexpr int kTileThreads = 128;

// With tables, E[x] and E[xx] come from the coefficients of the few cells under a tile. Without, x and xx are
// blurred as y and xy are: a CAM that is hardly enlarged has about as many cells as pixels.
constexpr int kCells = 6;  // touched by a tile, along a side
constexpr int kBand = 4;   // touched by a thread's positions, of one column, at most

// The numbers of an image that the tiles and the last kernel need.
struct Extremes {
  float counts;  // 0: as an image without a map
  float flat;
  float low;
  float high;     // infinite when flat: all values are 0
  float inverse;  // of the range, 0 when flat
  float human_low;
  float human_high;
  float human_inverse;
};

// The result is exactly 0 and 1 at the extremes, where |x - y| has no slope.
__device__ float normalized(float value, float low, float high, float inverse) {
  return value >= high ? 1.0f : (value - low) * inverse;
}

// The samples under the windows of some positions, and the cells that they lie between.
struct Region {
  int first;  // sample, -pad for the first position
  int samples;
  int first_cell;  // -1 and `cells` stand for the zeros beyond the border
  int cells;
};

// A side of the loss in tiles. A tile has as many positions of the window as pixels of its own; behind the
// last position they are pixels only.
struct Axis {
  int length;
  int cells;
  int positions;
  int window;
  Border border;
  int tile;  // positions
  int tiles;
  int touched;  // cells that a tile touches at most

  __host__ __device__ Axis(int64_t pixels, int64_t cells, const SaliencyLossArgs& args, int tile)
      : length(pixels),
        cells(cells),
        positions(ssim_positions(pixels, args.window, args.border)),
        window(args.window),
        border(args.border),
        tile(tile),
        tiles((length + tile - 1) / tile),
        touched(most_touched(tile)) {}

  // Pixels s apart are at most ceil(s cells / length) cells apart; one more is `next`, one the first itself.
  // The zeros beyond the border take no more than the pixels in their place would.
  __host__ __device__ int most_touched(int of_positions) const {
    const int apart = of_positions + window - 2;
    const int most = (apart * cells + length - 1) / length + 2;
    const int all = border == Border::zero ? cells + 2 : cells;
    return most < all ? most : all;
  }
  __device__ int pad() const { return static_cast<int>(padding(window, border)); }
  __device__ Between place(int pixel) const { return between(pixel, cells, length); }
  __device__ int pixel(int sample) const { return padded_index(sample, length, pad(), border); }
  __device__ Between outside(int sample) const {
    return sample < 0 ? Between{-1, -1, 0.0f} : Between{cells, cells, 0.0f};
  }
  __device__ Bin pixels(const Region& region) const {
    const int end = region.first + region.samples;
    return {region.first < 0 ? 0 : region.first, end < length ? end : length};
  }
  // at(pixel): where it lies.
  template <typename At>
  __device__ int first_cell(int position, At at) const {
    const int first = position - pad();
    if (first < 0) return border == Border::zero ? -1 : 0;
    return first < length ? at(first).cell : cells - 1;
  }
  template <typename At>
  __device__ Region region(int position, int of_positions, At at) const {
    Region region{position - pad(), of_positions + window - 1, 0, 0};
    const Bin inside = pixels(region);
    region.first_cell = first_cell(position, at);
    const bool zeros = border == Border::zero && region.first + region.samples > length;
    const int last = zeros ? cells : at(inside.end - 1).next;
    region.cells = last + 1 - region.first_cell;
    return region;
  }
};

// The coefficients from which the moments of x are made. They belong to a position p of a side and a cell i.
// The sums are over the window's taps g_k and samples, of which i has the share u and its neighbour i + 1 the
// share v:
//   mean       sum g_k u            E[x]  = sum_i mean_i X_i
//   square     sum g_k u u          E[xx] = sum_i square_i X_i X_i + product_i X_i X_{i+1}
//   product    sum g_k 2 u v
//   pixel      the share of i in pixel p
// The first three are multiples of 2^-24 that sum to 1 over the cells, as the taps do: a flat window has
// exactly no variance. Zero behind the last position, or pixel.
enum Coefficient { kMean, kSquare, kProduct, kPixel };
using Coefficients = Pack<float>;

// The sums over all cells up to one are rounded, rather than the coefficients, so that roundings do not add
// up.
template <int most>
__device__ Coefficients coefficients(const Axis& axis, const Taps<most>& taps, int position, int cell) {
  Coefficients result{};
  if (position < axis.length) result.at[kPixel] = share(axis.place(position), cell);
  if (position >= axis.positions) return result;
  double means[2] = {}, squares[3] = {};  // before this cell and with it; with its product
#pragma unroll 4
  for (int k = 0; k < axis.window; ++k) {
    const int sample = position - axis.pad() + k, pixel = axis.pixel(sample);
    const Between at = pixel < 0 ? axis.outside(sample) : axis.place(pixel);
    const double tap = taps.at[k], next = at.weight, own = 1.0 - next;
    const int before = cell - at.cell;
    if (before < 0) continue;
    means[0] += before >= 2 ? tap : before == 1 ? tap * own : 0.0;
    means[1] += before >= 1 ? tap : tap * own;
    squares[0] += before >= 2 ? tap : before == 1 ? tap * (1.0 - next * next) : 0.0;
    squares[1] += before >= 1 ? tap : tap * own * own;
    squares[2] += before >= 1 ? tap : tap * (1.0 - next * next);
  }
  const auto part = [](double from, double to) {
    constexpr double kParts = 1 << 24;
    return static_cast<float>((rint(to * kParts) - rint(from * kParts)) / kParts);
  };
  result.at[kMean] = part(means[0], means[1]);
  result.at[kSquare] = part(squares[0], squares[1]);
  result.at[kProduct] = part(squares[1], squares[2]);
  return result;
}

// The workspace: the coefficients of each side, [position][kCells]; where its pixels lie; per image its
// extremes, its CAM in float, for each cell its share of the pixels at the minimum and at the maximum, with
// what is needed to find it, and its normalised CAM; then the tiles' sums.
struct Layout {
  float* data;
  int64_t images;
  int64_t cells;
  Axis sides[2];  // down, across
  int band;       // cells that a thread's positions touch at most
  bool tables;    // whether the tiles use the coefficients
  float per_position;
  float per_pixel;

  // Counted in floats: where the places, the images and the tiles start, and what one of them takes.
  int64_t places_at;
  int64_t images_at;
  int64_t tiles_at;
  int64_t per_image;
  int64_t per_tile;

  static constexpr int kHead = sizeof(Extremes) / sizeof(float);
  static constexpr int kCorners = 4, kTies = 8;  // per cell
  static constexpr int kFrame = 2;               // cells around the normalised CAM

  __host__ __device__ int64_t entries(int side) const {
    return tables ? int64_t{sides[side].tiles} * sides[side].tile * kCells : 0;
  }
  int64_t floats() const { return tiles_at + images * sides[0].tiles * sides[1].tiles * per_tile; }

  template <typename Shape>
  Layout(const SaliencyLossArgs& args, Shape)
      : data(args.workspace),
        images(args.images),
        cells(args.cam_height * args.cam_width),
        sides{{args.height, args.cam_height, args, Shape::kTile},
              {args.width, args.cam_width, args, Shape::kTile}},
        band(sides[0].most_touched(Shape::kEach)),
        tables(sides[0].touched <= kCells && sides[1].touched <= kCells && band <= kBand),
        per_position(1.0f /
                     (static_cast<float>(sides[0].positions) * static_cast<float>(sides[1].positions))),
        per_pixel(1.0f / (static_cast<float>(sides[0].length) * static_cast<float>(sides[1].length))) {
    places_at = 4 * (entries(0) + entries(1));
    images_at = places_at + (sides[0].length + sides[1].length) * int64_t{sizeof(Between) / sizeof(float)};
    const int64_t framed = (sides[0].cells + 2 * kFrame) * int64_t{sides[1].cells + 2 * kFrame};
    per_image = kHead + framed + (3 + kCorners + kTies) * cells;
    tiles_at = images_at + images * per_image;
    per_tile = 1 + int64_t{sides[0].touched} * sides[1].touched;
  }

  __device__ Coefficients* table(int side) const {
    return reinterpret_cast<Coefficients*>(data) + (side == 0 ? 0 : sides[0].tiles * sides[0].tile * kCells);
  }
  __device__ Between* places(int side) const {
    return reinterpret_cast<Between*>(data + places_at) + (side == 0 ? 0 : sides[0].length);
  }
  __device__ float* head(int64_t image) const { return data + images_at + image * per_image; }
  __device__ float* cam(int64_t image) const { return head(image) + kHead; }
  __device__ float* shares(int64_t image, int high) const { return cam(image) + cells * (1 + high); }
  __device__ float* corners(int64_t image) const { return cam(image) + 3 * cells; }
  __device__ float* ties(int64_t image) const { return corners(image) + kCorners * cells; }
  // The normalised CAM, shifted, within a frame of zeros, as far from the border as coefficients reach.
  __device__ int framed_width() const { return sides[1].cells + 2 * kFrame; }
  __device__ float* framed(int64_t image) const { return ties(image) + kTies * cells; }
  // One sum of the loss, then those of the touched cells.
  __device__ float* tile(int64_t image, int row, int column) const {
    const int64_t tile = (image * sides[0].tiles + row) * sides[1].tiles + column;
    return data + tiles_at + tile * per_tile;
  }
  __device__ Extremes& extremes(int64_t image) const { return *reinterpret_cast<Extremes*>(head(image)); }
  __device__ Region region(int side, int position, int of_positions) const {
    const Between* at = places(side);
    return sides[side].region(position, of_positions, [=](int pixel) { return at[pixel]; });
  }
};

}  // namespace
}  // namespace sal_fast
