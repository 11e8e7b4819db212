// Three launches: tiles of window positions (similarity and its slopes with respect to the moments), the
// gradient (those slopes blurred by the transposed window), the sums of the tiles in a fixed order.
//
// Per position and channel, s bytes a value: the similarity alone reads 2 s bytes (weights: 4 more, a map:
// 4); one gradient writes and reads 12 bytes of slopes more (both: 16), reads 2 s again and writes 4 (both:
// 8). Flops at window 11, where 42 rows are blurred for 32: 145 + 110 for the five blurs, 40 for the
// similarity, 51 a field for the blurs back. Window 11: 80 registers and 42 KB of shared memory for the
// similarity (5 blocks of 256 threads fit an SM's shared memory, 3 its registers), 48 and 13 KB for the
// gradient; any other window but 7: 63 to 68 and 35 KB, up to 46 and 13 KB. No spills for sm_80, sm_90,
// sm_100 (nvcc 13.0). Not timed on a GPU yet.
#include "block.cuh"
#include "blur.cuh"

namespace sal_fast {
namespace {

constexpr int kTileThreads = 256;

// The taps that are passed to a kernel.
template <typename Shape>
constexpr int kMostTaps = Shape::kFixed ? Shape::kTaps : kSsimMostWindow;

// The tiles of each plane. A plane is a channel of an image.
struct Tiling {
  int64_t planes;
  int64_t down;
  int64_t across;

  __host__ __device__ int64_t count() const { return planes * down * across; }
};

struct TileAt {
  int64_t plane;
  int64_t row;
  int64_t column;
};

template <typename Shape>
__device__ TileAt tile_at(int64_t tile, const Tiling& tiling) {
  const int64_t per_plane = tiling.down * tiling.across;
  const int64_t within = tile % per_plane;
  return {tile / per_plane, within / tiling.across * Shape::kTile, within % tiling.across * Shape::kTile};
}

// The slopes, a plane for each field: square, cross, then the mean of each image that wants a gradient.
struct Slopes {
  float* data;
  int64_t planes;
  int64_t rows;
  int64_t columns;

  __device__ float* plane(int field, int64_t plane) const {
    return data + (field * planes + plane) * rows * columns;
  }
};

// Visits each pair of chunks of at most kTaps taps, down and across. The blur of a longer window is the sum
// of the blurs of its chunks.
template <typename Shape, typename Visit>
__device__ void for_each_chunk(int window, Visit visit) {
  const int size = Shape::kFixed ? Shape::kTaps : window;
  const auto taps = [=](int first) { return size - first < Shape::kTaps ? size - first : Shape::kTaps; };
  for (int down = 0; down < size; down += Shape::kTaps)
    for (int across = 0; across < size; across += Shape::kTaps) visit(down, taps(down), across, taps(across));
}

__device__ int64_t offset_of(const PlaneStrides& strides, int64_t image, int64_t channel) {
  return image * strides.image + channel * strides.channel;
}

// The type is asked for at each read: the blurs take far longer, and one kernel serves all types.
__device__ float sample(const void* images, ImageType type, const PlaneStrides& strides, int64_t plane,
                        int64_t row, int64_t column) {
  const int64_t at = plane + row * strides.row + column * strides.column;
  if (type == ImageType::uint8) return static_cast<const uint8_t*>(images)[at];
  if (type == ImageType::uint16) return static_cast<const uint16_t*>(images)[at];
  return load_float(images, static_cast<DType>(type), at);
}

__device__ float weight_of(const SsimArgs& args, int64_t image, int64_t channel, int64_t row,
                           int64_t column) {
  if (!args.weights) return 1.0f;
  const PlaneStrides& strides = args.weights_strides;
  return args.weights[offset_of(strides, image, channel) + row * strides.row + column * strides.column];
}

// The sum over an image is divided by this.
__device__ float total_of(const SsimArgs& args, int64_t image, const Slopes& slopes) {
  if (args.weights) return args.totals ? static_cast<float>(args.totals[image]) : 1.0f;
  return static_cast<float>(args.channels) * static_cast<float>(slopes.rows) *
         static_cast<float>(slopes.columns);
}

// partial[tile] becomes the sum of the tile's similarities times their weights.
template <typename Shape>
__global__ void __launch_bounds__(kTileThreads, 3)
    similarity_kernel(SsimArgs args, Taps<kMostTaps<Shape>> taps, SsimConstants constants, Tiling tiling,
                      Slopes slopes, float* partial) {
  __shared__ Samples<Shape> x, y;
  __shared__ BlurredRows<Shape> blurred[5];
  const int64_t pad = padding(args.window, args.border);
  for (int64_t tile = blockIdx.x; tile < tiling.count(); tile += gridDim.x) {
    const TileAt at = tile_at<Shape>(tile, tiling);
    const int64_t image = at.plane / args.channels, channel = at.plane % args.channels;
    const int64_t x_plane = offset_of(args.x_strides, image, channel);
    const int64_t y_plane = offset_of(args.y_strides, image, channel);
    float sums[5][Shape::kEach] = {};
    for_each_chunk<Shape>(args.window, [&](int down, int taps_down, int across, int taps_across) {
      const int rows = Shape::kTile + taps_down - 1, columns = Shape::kTile + taps_across - 1;
      for (int i = threadIdx.x; i < rows * columns; i += kTileThreads) {
        const int r = i / columns, c = i % columns;
        const int64_t row = padded_index(at.row + down + r - pad, args.height, pad, args.border);
        const int64_t column = padded_index(at.column + across + c - pad, args.width, pad, args.border);
        const bool inside = row >= 0 && column >= 0;
        x[r][c] = (inside ? sample(args.x, args.type, args.x_strides, x_plane, row, column) : 0.0f) -
                  constants.shift;
        y[r][c] = (inside ? sample(args.y, args.type, args.y_strides, y_plane, row, column) : 0.0f) -
                  constants.shift;
      }
      __syncthreads();
      blur_rows<Shape, 5>(
          taps_across, [&](int k) { return taps.at[across + k]; },
          [&](int r, int c, float (&values)[5]) { moments_of(x[r][c], y[r][c], values); }, blurred, rows);
      __syncthreads();
      blur_columns<Shape>(taps_down, [&](int k) { return taps.at[down + k]; }, blurred, sums);
    });

    float sum = 0;
#pragma unroll
    for (int i = 0; i < Shape::kEach; ++i) {
      const int64_t row = at.row + Shape::row(i), column = at.column + Shape::column();
      if (row >= slopes.rows || column >= slopes.columns) continue;
      const SsimMoments<float> moments{sums[0][i], sums[1][i], sums[2][i], sums[3][i], sums[4][i]};
      SsimTerms<float> terms = ssim_terms(moments, constants);
      if (args.structure) terms = without_luminance(terms);
      const float similarity = ssim_value(terms), weight = weight_of(args, image, channel, row, column);
      const int64_t position = row * slopes.columns + column;
      sum += weight * similarity;
      if (args.map)
        static_cast<float*>(args.map)[at.plane * slopes.rows * slopes.columns + position] = similarity;
      if (!args.grad_x && !args.grad_y) continue;
      const SsimSlopes<float> of = ssim_slopes(moments, terms, weight);
      slopes.plane(0, at.plane)[position] = of.square;
      slopes.plane(1, at.plane)[position] = of.cross;
      if (args.grad_x) slopes.plane(2, at.plane)[position] = of.x;
      if (args.grad_y) slopes.plane(args.grad_x ? 3 : 2, at.plane)[position] = of.y;
    }
    sum = merge_lanes<kTileThreads>(sum, Sum{});
    if (threadIdx.x == 0) partial[tile] = sum;
  }
}

template <typename Shape>
__global__ void __launch_bounds__(kTileThreads)
    gradient_kernel(SsimArgs args, Taps<kMostTaps<Shape>> taps, SsimConstants constants, Tiling tiling,
                    Slopes slopes) {
  __shared__ Samples<Shape> field;
  __shared__ BlurredRows<Shape> blurred[1];
  const int64_t pad = args.border == Border::valid ? args.window - 1 : args.window / 2;
  const int fields = 2 + (args.grad_x != nullptr) + (args.grad_y != nullptr);
  for (int64_t tile = blockIdx.x; tile < tiling.count(); tile += gridDim.x) {
    const TileAt at = tile_at<Shape>(tile, tiling);
    float blurs[4][Shape::kEach];
#pragma unroll
    for (int f = 0; f < 4; ++f) {
      float sums[1][Shape::kEach] = {};
      if (f < fields) {
        const float* plane = slopes.plane(f, at.plane);
        for_each_chunk<Shape>(args.window, [&](int down, int taps_down, int across, int taps_across) {
          const int rows = Shape::kTile + taps_down - 1, columns = Shape::kTile + taps_across - 1;
          for (int i = threadIdx.x; i < rows * columns; i += kTileThreads) {
            const int r = i / columns, c = i % columns;
            const int64_t row = padded_index(at.row + down + r - pad, slopes.rows, pad, args.border);
            const int64_t column =
                padded_index(at.column + across + c - pad, slopes.columns, pad, args.border);
            field[r][c] = row < 0 || column < 0 ? 0.0f
                                                : plane[row * slopes.columns + column] *
                                                      end_weight(row, slopes.rows, args.border, 2.0f) *
                                                      end_weight(column, slopes.columns, args.border, 2.0f);
          }
          __syncthreads();
          blur_rows<Shape, 1>(
              taps_across, [&](int k) { return taps.at[across + k]; },
              [&](int r, int c, float (&values)[1]) { values[0] = field[r][c]; }, blurred, rows);
          __syncthreads();
          blur_columns<Shape>(taps_down, [&](int k) { return taps.at[down + k]; }, blurred, sums);
        });
      }
#pragma unroll
      for (int i = 0; i < Shape::kEach; ++i) blurs[f][i] = sums[0][i];
    }

    const int64_t image = at.plane / args.channels, channel = at.plane % args.channels;
    const int64_t x_plane = offset_of(args.x_strides, image, channel);
    const int64_t y_plane = offset_of(args.y_strides, image, channel);
    const float scale = 1.0f / total_of(args, image, slopes);
#pragma unroll
    for (int i = 0; i < Shape::kEach; ++i) {
      const int64_t row = at.row + Shape::row(i), column = at.column + Shape::column();
      if (row >= args.height || column >= args.width) continue;
      const float x = sample(args.x, args.type, args.x_strides, x_plane, row, column) - constants.shift;
      const float y = sample(args.y, args.type, args.y_strides, y_plane, row, column) - constants.shift;
      const float weight = scale * end_weight(row, args.height, args.border, 0.5f) *
                           end_weight(column, args.width, args.border, 0.5f);
      const float square = 2.0f * blurs[0][i], cross = blurs[1][i];
      const int64_t pixel = (at.plane * args.height + row) * args.width + column;
      if (args.grad_x) args.grad_x[pixel] = weight * (blurs[2][i] + x * square + y * cross);
      if (args.grad_y)
        args.grad_y[pixel] = weight * ((args.grad_x ? blurs[3][i] : blurs[2][i]) + y * square + x * cross);
    }
  }
}

__global__ void __launch_bounds__(kTileThreads)
    mean_kernel(SsimArgs args, Slopes slopes, const float* partial, int64_t tiles) {
  for (int64_t image = blockIdx.x; image < args.images; image += gridDim.x) {
    float sum = 0;
    for (int64_t i = threadIdx.x; i < tiles; i += kTileThreads) sum += partial[image * tiles + i];
    sum = merge_lanes<kTileThreads>(sum, Sum{});
    if (threadIdx.x == 0) static_cast<float*>(args.values)[image] = sum / total_of(args, image, slopes);
  }
}

template <typename Shape>
Tiling tiling_of(const SsimArgs& args, int64_t rows, int64_t columns) {
  const auto tiles = [](int64_t side) { return (side + Shape::kTile - 1) / Shape::kTile; };
  return {args.images * args.channels, tiles(rows), tiles(columns)};
}

Slopes slopes_of(const SsimArgs& args, int64_t tiles) {
  return {args.workspace + tiles, args.images * args.channels,
          ssim_positions(args.height, args.window, args.border),
          ssim_positions(args.width, args.window, args.border)};
}

}  // namespace

int64_t workspace_floats(const SsimArgs& args) {
  const Slopes slopes = slopes_of(args, 0);
  const int64_t tiles = with_shape<kTileThreads>(args.window, [&](auto shape) {
    return tiling_of<decltype(shape)>(args, slopes.rows, slopes.columns).count();
  });
  const int64_t fields =
      args.grad_x || args.grad_y ? 2 + (args.grad_x != nullptr) + (args.grad_y != nullptr) : 0;
  return tiles + fields * slopes.planes * slopes.rows * slopes.columns;
}

int ssim_cuda(const SsimArgs& args, void* stream) {
  if (args.images == 0 || args.channels == 0) return cudaSuccess;
  if (args.exact || args.type == ImageType::float64) return cudaErrorInvalidValue;
  const SsimConstants constants = ssim_constants(args.data_range, args.window);
  with_shape<kTileThreads>(args.window, [&](auto shape) {
    using Shape = decltype(shape);
    const auto taps = taps_of<kMostTaps<Shape>>(args.window, args.sigma);
    Slopes slopes = slopes_of(args, 0);
    const Tiling positions = tiling_of<Shape>(args, slopes.rows, slopes.columns);
    slopes.data += positions.count();
    SAL_FAST_LAUNCH(similarity_kernel<Shape>, blocks_for(positions.count()), kTileThreads, stream, args, taps,
                    constants, positions, slopes, args.workspace);
    if (args.grad_x || args.grad_y) {
      const Tiling pixels = tiling_of<Shape>(args, args.height, args.width);
      SAL_FAST_LAUNCH(gradient_kernel<Shape>, blocks_for(pixels.count()), kTileThreads, stream, args, taps,
                      constants, pixels, slopes);
    }
    if (args.values)
      SAL_FAST_LAUNCH(mean_kernel, blocks_for(args.images), kTileThreads, stream, args, slopes,
                      args.workspace, positions.count() / args.images);
  });
  return cudaGetLastError();
}

}  // namespace sal_fast
