// Up to 1024 pixels (32 x 32) one launch, a block an image, does everything: the default, bound by that
// launch and by the target's bytes (target_height * target_width of them, read once).
//
// Beyond, three launches: the extremes; tiles of window positions, which make the enlarged CAM as they go;
// the sums of the tiles in a fixed order, and the way back through the extremes. Bytes moved: the target once
// for its extremes and once with the halo of its tiles (a factor 1.7 at window 11), and 4 (1 + cells touched)
// per tile, twice. Flops per position at window 11: 255 for the blurs, 40 for the similarity, 230 for the
// blurs back.
//
// Registers and shared memory: one launch 106 (128 on sm_100) and 42 KB, tiles of window 11 96 (127) and 46
// KB, extremes up to 116. No spills for sm_80, sm_90, sm_100 (nvcc 13.0). Not timed on a GPU yet.
//
// The gradient is made with the value. With N the normalised CAM, the maps are x = U N U', U the rows' and
// columns' bilinear weights (with the border's padding), so that D = dL/dN = U' (dL/dx) U is all that leaves
// a tile. As rows of U sum to 1, sum(dL/dx) = sum(D) and sum(x dL/dx) = <D, N>, which is what the extremes
// need.
#include "block.cuh"
#include "blur.cuh"
#include "sal_fast/saliency_loss.h"

namespace sal_fast {
namespace {

constexpr int kThreads = 512;  // of the kernels with a block an image
constexpr float kRange = 1.0f;

__device__ bool has_map(const SaliencyLossArgs& args, int64_t image) {
  return !args.has_map || args.has_map[image];
}

__device__ float cam_at(const SaliencyLossArgs& args, int64_t i) {
  if (args.dtype == DType::float32) return static_cast<const float*>(args.cam)[i];
  if (args.dtype == DType::float16) return to_float(static_cast<const __half*>(args.cam)[i]);
  return to_float(static_cast<const __nv_bfloat16*>(args.cam)[i]);
}

// The target in bins
// ------------------------------------------------------------------------------------------

// Calls visit(row, column) for those of rows x columns that fall to `lane` of kLanes.
template <int kLanes, typename Visit>
__device__ void share_out(int rows, int columns, int lane, Visit visit) {
  if constexpr (kLanes == 1) {
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < columns; ++column) visit(row, column);
  } else {
    for (int i = lane; i < rows * columns; i += kLanes) visit(i / columns, i % columns);
  }
}

// The part of a word of `kUnits` units of `kBits` bits, the first of which is unit `first` of its row, that
// lies in the bin.
template <int kUnits>
__device__ unsigned part_in(unsigned word, int first, Bin bin) {
  constexpr int kBits = 32 / kUnits;
  const auto below = [=](int end) {
    const int units = end - first < 0 ? 0 : end - first < kUnits ? end - first : kUnits;
    return static_cast<unsigned>((uint64_t{1} << units * kBits) - 1);
  };
  return word & below(bin.end) & ~below(bin.begin);
}

__device__ unsigned sum_of_bytes(unsigned word) {
  const unsigned pairs = (word & 0x00ff00ffu) + (word >> 8 & 0x00ff00ffu);
  return (pairs & 0xffffu) + (pairs >> 16);
}

template <int kLanes>
__device__ unsigned sum_bytes(const SaliencyLossArgs& args, const unsigned char* image, Bin rows, Bin columns,
                              int lane) {
  const int down = rows.end - rows.begin;
  const unsigned char* top = image + rows.begin * args.target_row_stride;
  unsigned sum = 0;
  const bool packed = kLanes > 1 && args.target_column_stride == 1 && args.target_row_stride % 16 == 0 &&
                      args.target_width % 16 == 0 && reinterpret_cast<uintptr_t>(image) % 16 == 0;
  if (packed) {
    const int first = columns.begin / 16, last = (columns.end + 15) / 16;
    share_out<kLanes>(down, last - first, lane, [&](int row, int pack) {
      const int column = (first + pack) * 16;
      const uint4 words = *reinterpret_cast<const uint4*>(top + row * args.target_row_stride + column);
      sum += sum_of_bytes(part_in<4>(words.x, column, columns));
      sum += sum_of_bytes(part_in<4>(words.y, column + 4, columns));
      sum += sum_of_bytes(part_in<4>(words.z, column + 8, columns));
      sum += sum_of_bytes(part_in<4>(words.w, column + 12, columns));
    });
  } else {
    share_out<kLanes>(down, columns.end - columns.begin, lane, [&](int row, int column) {
      sum += top[row * args.target_row_stride + (columns.begin + column) * args.target_column_stride];
    });
  }
  return sum;
}

template <int kLanes>
__device__ unsigned sum_bits(const SaliencyLossArgs& args, const unsigned* image, Bin rows, Bin columns,
                             int lane) {
  const int first = columns.begin / 32, last = (columns.end + 31) / 32;
  unsigned sum = 0;
  share_out<kLanes>(rows.end - rows.begin, last - first, lane, [&](int row, int word) {
    const unsigned bits = image[(rows.begin + row) * args.target_row_stride + first + word];
    sum += __popc(part_in<32>(bits, (first + word) * 32, columns));
  });
  return sum;
}

template <int kLanes, typename scalar>
__device__ float sum_floats(const SaliencyLossArgs& args, const scalar* image, Bin rows, Bin columns,
                            int lane) {
  const scalar* corner =
      image + rows.begin * args.target_row_stride + columns.begin * args.target_column_stride;
  float sum = 0;
  share_out<kLanes>(rows.end - rows.begin, columns.end - columns.begin, lane, [&](int row, int column) {
    sum += to_float(corner[row * args.target_row_stride + column * args.target_column_stride]);
  });
  return sum;
}

template <int kLanes, typename Value>
__device__ Value reduce_lanes(Value value) {
  if constexpr (kLanes == 1) return value;
  return reduce_warp(value, [](Value a, Value b) { return a + b; });
}

// The mean of the target over a bin, by one thread or by a warp. Exact sums of bytes and bits, and a
// quotient: bins of a constant target are equal, whatever their sizes.
template <int kLanes>
__device__ float pooled(const SaliencyLossArgs& args, int64_t image, Bin rows, Bin columns, int lane = 0) {
  const auto count = static_cast<float>((rows.end - rows.begin) * (columns.end - columns.begin));
  const int64_t origin = image * args.target_image_stride;
  switch (args.target_type) {
    case TargetType::bytes: {
      const auto* data = static_cast<const unsigned char*>(args.target) + origin;
      return reduce_lanes<kLanes>(sum_bytes<kLanes>(args, data, rows, columns, lane)) / count;
    }
    case TargetType::bits: {
      const auto* data = static_cast<const unsigned*>(args.target) + origin;
      return reduce_lanes<kLanes>(sum_bits<kLanes>(args, data, rows, columns, lane)) / count;
    }
    case TargetType::float32: {
      const auto* data = static_cast<const float*>(args.target) + origin;
      return reduce_lanes<kLanes>(sum_floats<kLanes>(args, data, rows, columns, lane)) / count;
    }
    case TargetType::float16: {
      const auto* data = static_cast<const __half*>(args.target) + origin;
      return reduce_lanes<kLanes>(sum_floats<kLanes>(args, data, rows, columns, lane)) / count;
    }
    case TargetType::bfloat16: {
      const auto* data = static_cast<const __nv_bfloat16*>(args.target) + origin;
      return reduce_lanes<kLanes>(sum_floats<kLanes>(args, data, rows, columns, lane)) / count;
    }
  }
  return 0.0f;
}

// The difference of two normalised maps at a pixel
// -------------------------------------------------------------

__device__ float difference_value(float difference, SaliencyKind kind) {
  return kind == SaliencyKind::mse ? difference * difference : fabsf(difference);
}

__device__ float difference_slope(float difference, SaliencyKind kind) {
  if (kind == SaliencyKind::mse) return 2.0f * difference;
  return difference > 0 ? 1.0f : difference < 0 ? -1.0f : difference;  // 0, or NaN
}

// From a map's extremes, and sums over pixels or cells: what a minimum and a maximum get of the gradient.
struct ExtremeGradients {
  float low;
  float high;
};

__device__ ExtremeGradients extreme_gradients(float sum, float sum_times_x, float range) {
  return {-(sum - sum_times_x) / range, -sum_times_x / range};
}

// Few pixels: a block an image
// ---------------------------------------------------------------------------------

constexpr int kFewPixels = 1024;
constexpr int kFewTaps = 31;
constexpr int kOwn = kFewPixels / kThreads;  // pixels a thread

struct Side {
  int length;     // samples
  int positions;  // of the window
  int window;
  Border border;

  __device__ int pad() const { return border == Border::valid ? 0 : window / 2; }
};

// Calls visit(tap, sample) for the samples of a window; sample -1 stands for a zero.
template <typename Visit>
__device__ void for_each_tap(const Side& side, const float* taps, int position, Visit visit) {
#pragma unroll 1
  for (int k = 0; k < side.window; ++k)
    visit(taps[k], padded_index(position + k - side.pad(), side.length, side.pad(), side.border));
}

// Calls visit(weight, position) for the window positions that a sample reaches.
template <typename Visit>
__device__ void for_each_reached(const Side& side, const float* taps, int sample, Visit visit) {
  const int pad = side.border == Border::valid ? side.window - 1 : side.window / 2;
  const float after = end_weight(sample, side.length, side.border, 0.5f);
#pragma unroll 1
  for (int k = 0; k < side.window; ++k) {
    const int position = padded_index(sample + k - pad, side.positions, pad, side.border);
    if (position >= 0)
      visit(taps[k] * after * end_weight(position, side.positions, side.border, 2.0f), position);
  }
}

__device__ void clear(const SaliencyLossArgs& args, int64_t image) {
  const int64_t cells = args.cam_height * args.cam_width;
  if (threadIdx.x == 0) args.values[image] = 0;
  if (args.grad)
    for (int64_t i = threadIdx.x; i < cells; i += kThreads) args.grad[image * cells + i] = 0;
}

__global__ void __launch_bounds__(kThreads, 1)
    few_pixels_kernel(SaliencyLossArgs args, Taps<kFewTaps> all_taps, SsimConstants constants) {
  __shared__ float taps[kFewTaps];
  __shared__ float x[kFewPixels], y[kFewPixels], slopes[3][kFewPixels], blurred[5][kFewPixels];
  float* const cam = blurred[0];
  const auto height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const auto cam_height = static_cast<int>(args.cam_height), cam_width = static_cast<int>(args.cam_width);
  const int pixels = height * width, cells = cam_height * cam_width;
  const auto window = static_cast<int>(args.window);
  const Side down{height, static_cast<int>(ssim_positions(height, window, args.border)), window, args.border};
  const Side across{width, static_cast<int>(ssim_positions(width, window, args.border)), window, args.border};
  const int positions = down.positions * across.positions;
  const bool similar = args.kind == SaliencyKind::ssim_l1;
  if (threadIdx.x < kFewTaps) taps[threadIdx.x] = all_taps.at[threadIdx.x];

  for (int64_t image = blockIdx.x; image < args.images; image += gridDim.x) {
    if (!has_map(args, image)) {
      clear(args, image);
      continue;
    }
    __syncthreads();  // the image before this one may still be read
    for (int i = threadIdx.x; i < cells; i += kThreads) cam[i] = cam_at(args, image * cells + i);
    for (int i = threadIdx.x / kWarp; i < pixels; i += kThreads / kWarp) {
      const Bin rows = bin_of(i / width, static_cast<int>(args.target_height), height);
      const Bin columns = bin_of(i % width, static_cast<int>(args.target_width), width);
      const float mean = pooled<kWarp>(args, image, rows, columns, threadIdx.x % kWarp);
      if (threadIdx.x % kWarp == 0) y[i] = mean;
    }
    __syncthreads();

    float z[kOwn], human[kOwn];
    float extremes[4] = {kInfinity, -kInfinity, kInfinity, -kInfinity};
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int i = threadIdx.x + own * kThreads;
      if (i >= pixels) continue;
      z[own] = enlarged(cam, cam_width, between(i / width, cam_height, height),
                        between(i % width, cam_width, width));
      human[own] = y[i];
      extremes[0] = Min{}(extremes[0], z[own]);
      extremes[1] = Max{}(extremes[1], z[own]);
      extremes[2] = Min{}(extremes[2], human[own]);
      extremes[3] = Max{}(extremes[3], human[own]);
    }
    reduce_block<kThreads>(extremes, Min{}, Max{}, Min{}, Max{});
    const float low = extremes[0], high = extremes[1], range = high - low;
    if (is_flat(extremes[2], extremes[3])) {
      clear(args, image);
      continue;
    }
    const bool flat = is_flat(low, high);
    const bool wants_gradient = args.grad && !flat;
    float normal[kOwn];
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int i = threadIdx.x + own * kThreads;
      if (i >= pixels) continue;
      normal[own] = flat ? 0.0f : (z[own] - low) / range;
      human[own] = (human[own] - extremes[2]) / (extremes[3] - extremes[2]);
      x[i] = normal[own] - constants.shift;
      y[i] = human[own] - constants.shift;
    }
    __syncthreads();

    float similarity = 0;
    if (similar) {
      for (int i = threadIdx.x; i < height * across.positions; i += kThreads) {
        const int row = i / across.positions;
        float sums[5] = {};
        for_each_tap(across, taps, i % across.positions, [&](float tap, int column) {
          const int at = row * width + column;
          float values[5];
          moments_of(column < 0 ? -constants.shift : x[at], column < 0 ? -constants.shift : y[at], values);
#pragma unroll
          for (int q = 0; q < 5; ++q) sums[q] += tap * values[q];
        });
#pragma unroll
        for (int q = 0; q < 5; ++q) blurred[q][i] = sums[q];
      }
      __syncthreads();
      for (int i = threadIdx.x; i < positions; i += kThreads) {
        const int column = i % across.positions;
        float nothing[5], sums[5] = {};
        moments_of(-constants.shift, -constants.shift, nothing);
        for_each_tap(down, taps, i / across.positions, [&](float tap, int row) {
#pragma unroll
          for (int q = 0; q < 5; ++q)
            sums[q] += tap * (row < 0 ? nothing[q] : blurred[q][row * across.positions + column]);
        });
        const SsimMoments<float> moments{sums[0], sums[1], sums[2], sums[3], sums[4]};
        const SsimTerms<float> terms = ssim_terms(moments, constants);
        similarity += ssim_value(terms);
        if (!wants_gradient) continue;
        const SsimSlopes<float> of = ssim_slopes(moments, terms, -1.0f / positions);
        slopes[0][i] = of.x;
        slopes[1][i] = of.square;
        slopes[2][i] = of.cross;
      }
      __syncthreads();
      if (wants_gradient) {
        for (int i = threadIdx.x; i < height * across.positions; i += kThreads) {
          const int column = i % across.positions;
          float sums[3] = {};
          for_each_reached(down, taps, i / across.positions, [&](float weight, int position) {
#pragma unroll
            for (int f = 0; f < 3; ++f) sums[f] += weight * slopes[f][position * across.positions + column];
          });
#pragma unroll
          for (int f = 0; f < 3; ++f) blurred[f][i] = sums[f];
        }
        __syncthreads();
      }
    }

    // Sums: the similarity, the difference, dL/dx, x dL/dx, pixels at the minimum and at the maximum.
    float sums[6] = {similarity};
    float slope[kOwn] = {};
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int i = threadIdx.x + own * kThreads;
      if (i >= pixels) continue;
      const float difference = normal[own] - human[own];
      sums[1] += difference_value(difference, args.kind);
      if (!wants_gradient) continue;
      slope[own] = difference_slope(difference, args.kind) / pixels;
      if (similar) {
        const int row = i / width;
        for_each_reached(across, taps, i % width, [&](float weight, int position) {
          const int at = row * across.positions + position;
          slope[own] += weight * (blurred[0][at] + 2.0f * x[i] * blurred[1][at] + y[i] * blurred[2][at]);
        });
      }
      sums[2] += slope[own];
      sums[3] += slope[own] * normal[own];
      sums[4] += z[own] == low;
      sums[5] += z[own] == high;
    }
    reduce_block<kThreads>(sums, Sum{}, Sum{}, Sum{}, Sum{}, Sum{}, Sum{});
    if (threadIdx.x == 0)
      args.values[image] = (similar ? 1.0f - sums[0] / positions : 0.0f) + sums[1] / pixels;
    if (!args.grad) continue;

    float* const of_pixel = slopes[0];
    const ExtremeGradients extreme = extreme_gradients(sums[2], sums[3], range);
#pragma unroll
    for (int own = 0; own < kOwn; ++own) {
      const int i = threadIdx.x + own * kThreads;
      if (i >= pixels) continue;
      float value = slope[own] / range;
      if (z[own] == low) value += extreme.low / sums[4];
      if (z[own] == high) value += extreme.high / sums[5];
      of_pixel[i] = flat ? 0.0f : value;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < cells; i += kThreads) {
      const int k = i / cam_width, l = i % cam_width;
      const int last_row = first_pixel(k + 1, cam_height, height);
      const int last_column = first_pixel(l + 1, cam_width, width);
      float sum = 0;
      for (int row = first_pixel(k - 1, cam_height, height); row < last_row; ++row) {
        float of_row = 0;
        for (int column = first_pixel(l - 1, cam_width, width); column < last_column; ++column)
          of_row += share(between(column, cam_width, width), l) * of_pixel[row * width + column];
        sum += share(between(row, cam_height, height), k) * of_row;
      }
      args.grad[image * cells + i] = sum;
    }
  }
}

// Many pixels
// --------------------------------------------------------------------------------------------------

// What the tiles need to know of an image, and what the last kernel needs of its extremes.
struct Extremes {
  float counts;  // 0: as an image without a map
  float flat;
  float low;
  float range;
  float human_low;
  float human_range;
};

// The workspace: per image its extremes, its CAM in float, for each cell its share of the pixels at the
// minimum and at the maximum, and those shares row by row; then the tiles' sums.
struct Layout {
  float* data;
  int64_t images;
  int64_t cells;
  int64_t rows;    // height * cam_width
  int tiles_down;  // of a tile's side
  int tiles_across;
  int touched_down;  // cells that a tile touches at most
  int touched_across;

  static constexpr int64_t kHead = sizeof(Extremes) / sizeof(float);

  __host__ __device__ int64_t per_image() const { return kHead + 3 * cells + 2 * rows; }
  __host__ __device__ int64_t tiles() const { return int64_t{tiles_down} * tiles_across; }
  __host__ __device__ int64_t per_tile() const { return 1 + int64_t{touched_down} * touched_across; }
  __host__ __device__ int64_t floats() const { return images * (per_image() + tiles() * per_tile()); }

  __device__ float* head(int64_t image) const { return data + image * per_image(); }
  __device__ float* cam(int64_t image) const { return head(image) + kHead; }
  __device__ float* shares(int64_t image, int high) const { return cam(image) + cells * (1 + high); }
  __device__ float* row_shares(int64_t image, int high) const { return cam(image) + 3 * cells + rows * high; }
  // One sum of the loss, then those of the touched cells.
  __device__ float* tile(int64_t image, int64_t tile) const {
    return data + images * per_image() + (image * tiles() + tile) * per_tile();
  }
  __device__ Extremes extremes(int64_t image) const {
    const float* h = head(image);
    return {h[0], h[1], h[2], h[3], h[4], h[5]};
  }
};

__global__ void __launch_bounds__(kThreads, 1) extremes_kernel(SaliencyLossArgs args, Layout layout) {
  const auto height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const auto cam_height = static_cast<int>(args.cam_height), cam_width = static_cast<int>(args.cam_width);
  const int cells = cam_height * cam_width;
  for (int64_t image = blockIdx.x; image < args.images; image += gridDim.x) {
    float* const head = layout.head(image);
    if (!has_map(args, image)) {
      if (threadIdx.x == 0) head[0] = 0;
      continue;
    }
    float* const cam = layout.cam(image);
    for (int i = threadIdx.x; i < cells; i += kThreads) cam[i] = cam_at(args, image * cells + i);
    __syncthreads();

    float extremes[4] = {kInfinity, -kInfinity, kInfinity, -kInfinity};
    for (int i = threadIdx.x; i < height * width; i += kThreads) {
      const Bin rows = bin_of(i / width, static_cast<int>(args.target_height), height);
      const Bin columns = bin_of(i % width, static_cast<int>(args.target_width), width);
      const float human = pooled<1>(args, image, rows, columns);
      extremes[2] = Min{}(extremes[2], human);
      extremes[3] = Max{}(extremes[3], human);
    }
    // A row is monotone between two cells: its extremes are next to the cells' columns.
    for (int i = threadIdx.x; i < height * cam_width; i += kThreads) {
      const int l = i % cam_width;
      const Between row = between(i / cam_width, cam_height, height);
      const int ends[2] = {first_pixel(l, cam_width, width), first_pixel(l + 1, cam_width, width) - 1};
      if (ends[0] > ends[1]) continue;
      for (const int column : ends) {
        const float z = enlarged(cam, cam_width, row, between(column, cam_width, width));
        extremes[0] = Min{}(extremes[0], z);
        extremes[1] = Max{}(extremes[1], z);
      }
    }
    reduce_block<kThreads>(extremes, Min{}, Max{}, Min{}, Max{});
    const float low = extremes[0], high = extremes[1];
    if (threadIdx.x == 0) {
      head[0] = !is_flat(extremes[2], extremes[3]);
      head[1] = is_flat(low, high);
      head[2] = low;
      head[3] = high - low;
      head[4] = extremes[2];
      head[5] = extremes[3] - extremes[2];
    }
    if (!args.grad) continue;

    // The pixels that tie, shared among the cells: along the rows, then along the columns.
    const float slack = 1e-6f * larger(fabsf(low), fabsf(high));
    for (int i = threadIdx.x; i < height * cam_width; i += kThreads) {
      const int l = i % cam_width;
      const Between row = between(i / cam_width, cam_height, height);
      float least = kInfinity, most = -kInfinity;
      for (int cell = l - 1; cell <= l + 1; ++cell) {
        const int column = cell < 0 ? 0 : cell < cam_width ? cell : cam_width - 1;
        const float value =
            blend(cam[row.cell * cam_width + column], cam[row.next * cam_width + column], row.weight);
        least = smaller(least, value);
        most = larger(most, value);
      }
      float at_low = 0, at_high = 0;
      if (!(least > low + slack && most < high - slack)) {
        const int last = first_pixel(l + 1, cam_width, width);
        for (int pixel = first_pixel(l - 1, cam_width, width); pixel < last; ++pixel) {
          const Between column = between(pixel, cam_width, width);
          const float z = enlarged(cam, cam_width, row, column);
          if (z == low) at_low += share(column, l);
          if (z == high) at_high += share(column, l);
        }
      }
      layout.row_shares(image, 0)[i] = at_low;
      layout.row_shares(image, 1)[i] = at_high;
    }
    __syncthreads();
    float counts[2] = {};
    for (int i = threadIdx.x; i < cells; i += kThreads) {
      const int k = i / cam_width, l = i % cam_width;
      const int last = first_pixel(k + 1, cam_height, height);
      float sums[2] = {};
      for (int row = first_pixel(k - 1, cam_height, height); row < last; ++row) {
        const float weight = share(between(row, cam_height, height), k);
        for (int e = 0; e < 2; ++e) sums[e] += weight * layout.row_shares(image, e)[row * cam_width + l];
      }
      for (int e = 0; e < 2; ++e) {
        layout.shares(image, e)[i] = sums[e];
        counts[e] += sums[e];
      }
    }
    reduce_block<kThreads>(counts, Sum{}, Sum{});
    for (int i = threadIdx.x; i < cells; i += kThreads)
      for (int e = 0; e < 2; ++e) layout.shares(image, e)[i] /= counts[e];
  }
}

// The samples of a side under a tile's windows.
struct Region {
  int first;  // sample, -pad for the first tile
  int samples;
  int first_cell;
  int cells;  // touched
};

__device__ Region region_of(int tile, int tile_side, int length, int cells, int window, Border border) {
  const int pad = border == Border::valid ? 0 : window / 2;
  Region region;
  region.first = tile * tile_side - pad;
  region.samples = tile_side + window - 1;
  const int end = region.first + region.samples < length ? region.first + region.samples : length;
  region.first_cell = between(region.first < 0 ? 0 : region.first, cells, length).cell;
  region.cells = between(end - 1, cells, length).next + 1 - region.first_cell;
  return region;
}

// A sample of a region: where it lies between the touched cells, its bin of the target, and what it is for.
struct Sample {
  Between at;
  Bin bin;
  bool inside;  // not a zero
  bool own;     // its difference counts here, and in no other tile
};

template <typename Shape>
__device__ Sample sample_of(int i, const Region& region, int tile, int tiles, int length, int cells,
                            int target_length, int window, Border border) {
  const int place = region.first + i;
  const int index = padded_index(place, length, border == Border::valid ? 0 : window / 2, border);
  Sample sample{{0, 0, 0.0f}, {0, 0}, index >= 0, false};
  if (index < 0) return sample;
  sample.at = between(index, cells, length);
  sample.at.cell -= region.first_cell;
  sample.at.next -= region.first_cell;
  sample.bin = bin_of(index, target_length, length);
  sample.own = place == index && place >= tile * Shape::kTile &&
               (tile == tiles - 1 || place < (tile + 1) * Shape::kTile);
  return sample;
}

template <typename Shape>
__global__ void __launch_bounds__(kTileThreads, 2)
    tiles_kernel(SaliencyLossArgs args, Taps<Shape::kTaps> taps, SsimConstants constants, Layout layout) {
  constexpr int kTile = Shape::kTile, kSide = Shape::kSide, kStrip = Shape::kStrip, kEach = Shape::kEach;
  constexpr int kStrips = (kSide + kStrip - 1) / kStrip;
  using Field = float[kTile][Shape::kTilePitch];  // a slope at the tile's positions
  using WideField = float[kTile][Shape::kPitch];  // after the blur back along the rows
  using RowSums = float[kSide][kSide + 2];        // of the gradient, a touched cell a column
  constexpr int kBlurred = 5 * sizeof(BlurredRows<Shape>) / sizeof(float);
  constexpr int kFields = 3 * (sizeof(Field) + sizeof(WideField)) / sizeof(float);
  // In turn: the touched cells, the blurred rows, the fields, the row sums.
  __shared__ float buffer[kBlurred > kFields ? kBlurred : kFields];
  __shared__ Samples<Shape> x, y;
  __shared__ Sample rows[kSide], columns[kSide];
  static_assert((kSide + 1) * (kSide + 1) <= sizeof(buffer) / sizeof(float));
  static_assert(sizeof(RowSums) <= sizeof(buffer));
  auto& blurred = reinterpret_cast<BlurredRows<Shape>(&)[5]>(buffer);
  auto& fields = reinterpret_cast<Field(&)[3]>(buffer);
  auto& wide = reinterpret_cast<WideField(&)[3]>(buffer[3 * sizeof(Field) / sizeof(float)]);
  auto& row_sums = reinterpret_cast<RowSums&>(buffer);

  const auto height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const auto cam_height = static_cast<int>(args.cam_height), cam_width = static_cast<int>(args.cam_width);
  const int window = Shape::kFixed ? Shape::kTaps : static_cast<int>(args.window);
  const int side = kTile + window - 1;
  const auto positions_down = static_cast<int>(ssim_positions(height, window, args.border));
  const auto positions_across = static_cast<int>(ssim_positions(width, window, args.border));
  const float per_position =
      1.0f / (static_cast<float>(positions_down) * static_cast<float>(positions_across));
  const float per_pixel = 1.0f / (static_cast<float>(height) * static_cast<float>(width));
  const bool similar = args.kind == SaliencyKind::ssim_l1;
  const auto tap = [&](int k) { return taps.at[k]; };

  for (int64_t block = blockIdx.x; block < args.images * layout.tiles(); block += gridDim.x) {
    const int64_t image = block / layout.tiles();
    const auto tile = static_cast<int>(block % layout.tiles());
    const Extremes extremes = layout.extremes(image);
    if (extremes.counts == 0) continue;
    const int tile_row = tile / layout.tiles_across, tile_column = tile % layout.tiles_across;
    const Region down = region_of(tile_row, kTile, height, cam_height, window, args.border);
    const Region across = region_of(tile_column, kTile, width, cam_width, window, args.border);
    __syncthreads();  // the tile before this one may still be read
    for (int i = threadIdx.x; i < 2 * side; i += kTileThreads) {
      if (i < side) {
        rows[i] = sample_of<Shape>(i, down, tile_row, layout.tiles_down, height, cam_height,
                                   static_cast<int>(args.target_height), window, args.border);
      } else {
        columns[i - side] =
            sample_of<Shape>(i - side, across, tile_column, layout.tiles_across, width, cam_width,
                             static_cast<int>(args.target_width), window, args.border);
      }
    }
    const float* cam = layout.cam(image) + down.first_cell * cam_width + across.first_cell;
    for (int i = threadIdx.x; i < down.cells * across.cells; i += kTileThreads)
      buffer[i] = cam[i / across.cells * cam_width + i % across.cells];
    __syncthreads();

    float value = 0;
    for (int i = threadIdx.x; i < side * side; i += kTileThreads) {
      const int r = i / side, c = i % side;
      const Sample &row = rows[r], &column = columns[c];
      float normal = 0, human = 0;
      if (row.inside && column.inside) {
        const float z = enlarged(buffer, across.cells, row.at, column.at);
        if (extremes.flat == 0) normal = (z - extremes.low) / extremes.range;
        human = (pooled<1>(args, image, row.bin, column.bin) - extremes.human_low) / extremes.human_range;
      }
      x[r][c] = normal - constants.shift;
      y[r][c] = human - constants.shift;
      if (row.own && column.own) value += per_pixel * difference_value(normal - human, args.kind);
    }
    __syncthreads();

    const bool wants_gradient = args.grad && extremes.flat == 0;
    if (similar) {
      blur_rows<Shape, 5>(
          window, tap, [&](int r, int c, float (&values)[5]) { moments_of(x[r][c], y[r][c], values); },
          blurred, side);
      __syncthreads();
      float sums[5][kEach] = {};
      blur_columns<Shape>(window, tap, blurred, sums);
      __syncthreads();  // the fields take the place of the blurred rows
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const bool inside = tile_row * kTile + Shape::row(i) < positions_down &&
                            tile_column * kTile + Shape::column() < positions_across;
        const SsimMoments<float> moments{sums[0][i], sums[1][i], sums[2][i], sums[3][i], sums[4][i]};
        const SsimTerms<float> terms = ssim_terms(moments, constants);
        if (inside) value -= per_position * ssim_value(terms);
        const SsimSlopes<float> of = ssim_slopes(moments, terms, -per_position);
        fields[0][Shape::row(i)][Shape::column()] = inside ? of.x : 0.0f;
        fields[1][Shape::row(i)][Shape::column()] = inside ? of.square : 0.0f;
        fields[2][Shape::row(i)][Shape::column()] = inside ? of.cross : 0.0f;
      }
      __syncthreads();
    }
    float* const out = layout.tile(image, tile);
    value = sum_block<kTileThreads>(value);
    if (threadIdx.x == 0) out[0] = value;
    if (!wants_gradient) continue;

    // The blur back gives a sample what its windows in this tile hold: a strip of samples a thread, from the
    // window positions first - window + 1, ...
    if (similar) {
      for (int item = threadIdx.x; item < 3 * kTile * kStrips; item += kTileThreads) {
        const int row = item % kTile, f = item / kTile % 3, first = item / (3 * kTile) * kStrip;
        float sums[kStrip] = {};
#pragma unroll
        for (int i = 0; i < kStrip + window - 1; ++i) {
          const int position = first + i - (window - 1);
          const float slope = position >= 0 && position < kTile ? fields[f][row][position] : 0.0f;
#pragma unroll
          for (int s = 0; s < kStrip; ++s)
            if (s + window - 1 - i >= 0 && s + window - 1 - i < window)
              sums[s] += tap(s + window - 1 - i) * slope;
        }
#pragma unroll
        for (int s = 0; s < kStrip; ++s)
          if (first + s < side) wide[f][row][first + s] = sums[s];
      }
      __syncthreads();
    }
    for (int item = threadIdx.x; item < side * kStrips; item += kTileThreads) {
      const int c = item % side, first = item / side * kStrip;
      float sums[3][kStrip] = {};
      if (similar) {
#pragma unroll
        for (int i = 0; i < kStrip + window - 1; ++i) {
          const int position = first + i - (window - 1);
          const bool inside = position >= 0 && position < kTile;
#pragma unroll
          for (int f = 0; f < 3; ++f) {
            const float slope = inside ? wide[f][position][c] : 0.0f;
#pragma unroll
            for (int s = 0; s < kStrip; ++s)
              if (s + window - 1 - i >= 0 && s + window - 1 - i < window)
                sums[f][s] += tap(s + window - 1 - i) * slope;
          }
        }
      }
#pragma unroll
      for (int s = 0; s < kStrip; ++s) {
        const int r = first + s;
        if (r >= side) continue;
        float slope = sums[0][s] + 2.0f * x[r][c] * sums[1][s] + y[r][c] * sums[2][s];
        if (rows[r].own && columns[c].own)
          slope += per_pixel * difference_slope(x[r][c] - y[r][c], args.kind);
        x[r][c] = rows[r].inside && columns[c].inside ? slope : 0.0f;
      }
    }
    __syncthreads();

    for (int item = threadIdx.x; item < side * across.cells; item += kTileThreads) {
      const int r = item % side, l = item / side;
      float sum = 0;
      for (int c = 0; c < side; ++c) sum += share(columns[c].at, l) * x[r][c];
      row_sums[r][l] = sum;
    }
    __syncthreads();
    for (int item = threadIdx.x; item < down.cells * across.cells; item += kTileThreads) {
      const int k = item / across.cells, l = item % across.cells;
      float sum = 0;
      for (int r = 0; r < side; ++r) sum += share(rows[r].at, k) * row_sums[r][l];
      out[1 + k * layout.touched_across + l] = sum;
    }
  }
}

constexpr int kMostTiles = kSaliencyMostSide / TileAny::kTile;  // a side

template <typename Shape>
__global__ void __launch_bounds__(kThreads) finish_kernel(SaliencyLossArgs args, Layout layout) {
  // The first cell and the number of cells that each row and each column of tiles touches.
  __shared__ short first[2][kMostTiles], touched[2][kMostTiles];
  const auto cam_height = static_cast<int>(args.cam_height), cam_width = static_cast<int>(args.cam_width);
  const int cells = cam_height * cam_width;
  const int tiles[2] = {layout.tiles_down, layout.tiles_across};
  for (int way = 0; way < 2; ++way) {
    for (int i = threadIdx.x; i < tiles[way]; i += kThreads) {
      const Region region =
          region_of(i, Shape::kTile, static_cast<int>(way == 0 ? args.height : args.width),
                    way == 0 ? cam_height : cam_width, static_cast<int>(args.window), args.border);
      first[way][i] = static_cast<short>(region.first_cell);
      touched[way][i] = static_cast<short>(region.cells);
    }
  }
  __syncthreads();
  for (int64_t image = blockIdx.x; image < args.images; image += gridDim.x) {
    const Extremes extremes = layout.extremes(image);
    if (extremes.counts == 0) {
      clear(args, image);
      continue;
    }
    float value = 0;
    for (int64_t i = threadIdx.x; i < layout.tiles(); i += kThreads) value += layout.tile(image, i)[0];
    value = sum_block<kThreads>(value);
    if (threadIdx.x == 0) args.values[image] = args.kind == SaliencyKind::ssim_l1 ? 1.0f + value : value;
    if (!args.grad) continue;

    float* const grad = args.grad + image * cells;
    if (extremes.flat != 0) {
      for (int i = threadIdx.x; i < cells; i += kThreads) grad[i] = 0;
      continue;
    }
    const float* cam = layout.cam(image);
    float sums[2] = {};  // of D, and of D N
    for (int i = threadIdx.x; i < cells; i += kThreads) {
      const int k = i / cam_width, l = i % cam_width;
      float sum = 0;
      for (int row = 0; row < layout.tiles_down; ++row) {
        const int r = k - first[0][row];
        if (r < 0 || r >= touched[0][row]) continue;
        for (int column = 0; column < layout.tiles_across; ++column) {
          const int c = l - first[1][column];
          if (c < 0 || c >= touched[1][column]) continue;
          const int64_t tile = int64_t{row} * layout.tiles_across + column;
          sum += layout.tile(image, tile)[1 + r * layout.touched_across + c];
        }
      }
      grad[i] = sum;
      sums[0] += sum;
      sums[1] += sum * ((cam[i] - extremes.low) / extremes.range);
    }
    reduce_block<kThreads>(sums, Sum{}, Sum{});
    const ExtremeGradients extreme = extreme_gradients(sums[0], sums[1], extremes.range);
    for (int i = threadIdx.x; i < cells; i += kThreads)
      grad[i] = grad[i] / extremes.range + extreme.low * layout.shares(image, 0)[i] +
                extreme.high * layout.shares(image, 1)[i];
  }
}

template <typename Shape>
Layout layout_of(const SaliencyLossArgs& args) {
  const auto tiles = [&](int64_t side) {
    const int64_t positions = ssim_positions(side, args.window, args.border);
    return static_cast<int>((positions + Shape::kTile - 1) / Shape::kTile);
  };
  // Pixels s apart are at most ceil(s cells / side) cells apart; one more is `next`, one the first itself.
  const auto touched = [&](int64_t side, int64_t cells) {
    const int64_t apart = Shape::kTile + args.window - 2;
    const int64_t most = (apart * cells + side - 1) / side + 2;
    return static_cast<int>(most < cells ? most : cells);
  };
  return {args.workspace,
          args.images,
          args.cam_height * args.cam_width,
          args.height * args.cam_width,
          tiles(args.height),
          tiles(args.width),
          touched(args.height, args.cam_height),
          touched(args.width, args.cam_width)};
}

bool few_pixels(const SaliencyLossArgs& args) {
  return args.height * args.width <= kFewPixels;
}

// mse needs no window.
SaliencyLossArgs without_unused(SaliencyLossArgs args) {
  if (args.kind == SaliencyKind::mse) {
    args.window = 1;
    args.border = Border::valid;
  }
  return args;
}

template <typename Run>
auto with_shape(int64_t window, Run run) {
  if (window == 11) return run(Tile11{});
  if (window == 7) return run(Tile7{});
  return run(TileAny{});
}

unsigned blocks_for(int64_t count) {
  constexpr int64_t kMostBlocks = 1 << 20;  // the kernels stride over the grid
  return static_cast<unsigned>(count < kMostBlocks ? count : kMostBlocks);
}

}  // namespace

int64_t saliency_loss_workspace(const SaliencyLossArgs& given) {
  const SaliencyLossArgs args = without_unused(given);
  if (few_pixels(args)) return 0;
  return with_shape(args.window, [&](auto shape) { return layout_of<decltype(shape)>(args).floats(); });
}

int saliency_loss_cuda(const SaliencyLossArgs& given, void* stream) {
  const SaliencyLossArgs args = without_unused(given);
  if (args.images == 0) return cudaSuccess;
  const SsimConstants constants = ssim_constants(kRange);
  if (few_pixels(args)) {
    SAL_FAST_LAUNCH(few_pixels_kernel, blocks_for(args.images), kThreads, stream, args,
                    taps_of<kFewTaps>(args.window, args.sigma), constants);
    return cudaGetLastError();
  }
  with_shape(args.window, [&](auto shape) {
    using Shape = decltype(shape);
    const Layout layout = layout_of<Shape>(args);
    SAL_FAST_LAUNCH(extremes_kernel, blocks_for(args.images), kThreads, stream, args, layout);
    SAL_FAST_LAUNCH((tiles_kernel<Shape>), blocks_for(args.images * layout.tiles()), kTileThreads, stream,
                    args, taps_of<Shape::kTaps>(args.window, args.sigma), constants, layout);
    SAL_FAST_LAUNCH((finish_kernel<Shape>), blocks_for(args.images), kThreads, stream, args, layout);
  });
  return cudaGetLastError();
}

}  // namespace sal_fast
