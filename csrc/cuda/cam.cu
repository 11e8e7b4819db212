// An image is a matrix X with contiguous rows, which are channels or pixels. Pooling, the map and the
// gradient's sums are all products X a (a number for each row) or X' b (a number for each column), and one
// read gives both. Blocks take tiles of an image, and a second kernel adds the tiles' sums in their order. So
// there are no atomics, and the bits are the same every time. Bytes moved: the forward reads the features
// once (gradcam++ twice, the second time from the L2 cache where they fit). The backward reads them once, if
// a sum over the features is needed at all, and writes as much. Not timed on a GPU yet.
#include "device.cuh"
#include "sal_fast/cam.h"

namespace sal_fast {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kWarpRows = 16;  // of a block's tile in the contraction
constexpr int64_t kTileRows = kWarps * kWarpRows;

// A block's tile has at least as many rows, and as many columns: that bounds the workspace.
constexpr int64_t kLeastTile = 64;
static_assert(kTileRows >= kLeastTile);

// The inputs that forward and backward share: where the features are, and the weight of each channel.
#define SAL_FAST_COPY(type, name) name(args.name),

struct Images {
  SAL_FAST_CAM_INPUTS(SAL_FAST_MEMBER)
  const float* known_pooled;  // for gradcampp

  template <typename Args>
  Images(const Args& args, const float* known_pooled)
      : SAL_FAST_CAM_INPUTS(SAL_FAST_COPY) known_pooled(known_pooled) {}

  SAL_FAST_HD int64_t rows() const { return layout == Layout::nchw ? channels : pixels; }
  SAL_FAST_HD int64_t columns() const { return layout == Layout::nchw ? pixels : channels; }

  __device__ ChannelWeight<float> weight_of(int64_t image, int64_t channel) const {
    const int64_t chosen = target[image];
    const bool valid = chosen >= 0 && chosen < classes;
    const float w = valid ? load_float(weight, weight_dtype, chosen * channels + channel) : 0.0f * kInfinity;
    const bool needed = probe == Probe::gradcampp && known_pooled;
    return channel_weight(w, needed ? known_pooled[image * channels + channel] : 0.0f, probe, pixels);
  }
};

// The gradient to the weighted sums of a map.
struct MapGradients {
  const float* upstream;  // null: ones, and there is no map
  const float* cam;

  __device__ float at(int64_t pixel, Probe probe) const {
    return upstream ? sum_gradient(upstream[pixel], cam[pixel], probe) : 1.0f;
  }
};

// Sums over the tiles of an image: each is the sum of `count` parts, at [image][part][index].
struct Parts {
  float* data;  // null: not wanted
  int64_t count;
  int64_t length;

  __device__ float sum(int64_t image, int64_t index) const {
    float sum = 0.0f;
    for (int64_t part = 0; part < count; ++part) sum += data[(image * count + part) * length + index];
    return sum;
  }
  __device__ float sum(int64_t i) const { return sum(i / length, i % length); }
};

// The results of a contraction: for each channel the sum over pixels, weighted by `gradients`, and for each
// pixel the sum over channels, weighted by their weights in the map.
struct Contraction {
  MapGradients gradients;
  Parts channels;
  Parts pixels;
  int64_t row_tiles;
  int64_t column_tiles;
};

// Sums each of kCount values over the warp. Afterwards x[0] of a lane is the sum of x[lane % kCount]. Halves
// change places, so that this takes about one shuffle for each value.
template <int kCount>
__device__ float sum_over_warp(float (&x)[kCount], int lane) {
#pragma unroll
  for (int width = kCount / 2; width > 0; width /= 2) {
    const bool upper = lane & width;
#pragma unroll
    for (int i = 0; i < width; ++i) {
      const float give = upper ? x[i] : x[i + width];
      const float keep = upper ? x[i + width] : x[i];
      x[i] = keep + __shfl_xor_sync(kAllLanes, give, width);
    }
  }
#pragma unroll
  for (int mask = kCount; mask < kWarp; mask *= 2) x[0] += __shfl_xor_sync(kAllLanes, x[0], mask);
  return x[0];
}

// A lane has kVectors vectors of kPack neighbouring columns of a row, a warp's width apart.
template <int kPack, int kVectors>
constexpr int64_t kTileColumns = kWarp * kPack * kVectors;

// A block takes kTileRows rows of an image and a tile of columns. A warp takes every kWarps-th of those rows,
// kAtOnce at a time, so that many loads are under way.
template <typename scalar, int kPack, int kVectors>
__global__ void __launch_bounds__(kThreads)
    contract_kernel(const scalar* features, Images images, Contraction result) {
  constexpr int kAtOnce = kPack == 1 ? 8 : 4;
  constexpr int kColumns = kPack * kVectors;  // a lane's
  constexpr int64_t kTile = kTileColumns<kPack, kVectors>;
  using Values = Pack<scalar, kPack>;
  __shared__ float partial[kWarps][kTile];

  const bool nchw = images.layout == Layout::nchw;
  const int64_t rows = images.rows(), columns = images.columns();
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  float* const of_rows = nchw ? result.channels.data : result.pixels.data;
  float* const of_columns = nchw ? result.pixels.data : result.channels.data;
  const auto factor = [&](bool channel, int64_t image, int64_t i) {
    return channel ? images.weight_of(image, i).value
                   : result.gradients.at(image * images.pixels + i, images.probe);
  };

  const int64_t tiles = result.row_tiles * result.column_tiles;
  for (int64_t job = blockIdx.x; job < images.images * tiles; job += gridDim.x) {
    const int64_t image = job / tiles;
    const int64_t row_tile = job % tiles / result.column_tiles;
    const int64_t column_tile = job % tiles % result.column_tiles;
    const int64_t first_row = row_tile * kTileRows + warp;
    const scalar* const data = features + image * images.image_stride;

    int64_t column[kVectors];
    float column_factor[kColumns], column_sum[kColumns];
#pragma unroll
    for (int v = 0; v < kVectors; ++v) {
      column[v] = column_tile * kTile + (v * kWarp + lane) * kPack;
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const bool wanted = of_rows && column[v] < columns;
        column_factor[v * kPack + i] = wanted ? factor(!nchw, image, column[v] + i) : 0.0f;
        column_sum[v * kPack + i] = 0.0f;
      }
    }
    const int64_t own_row = first_row + lane % kWarpRows * kWarps;
    const float own_factor = of_columns && own_row < rows ? factor(nchw, image, own_row) : 0.0f;

#pragma unroll
    for (int r = 0; r < kWarpRows; r += kAtOnce) {
      if (first_row + r * kWarps >= rows) break;
      Values values[kAtOnce][kVectors];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
#pragma unroll
        for (int v = 0; v < kVectors; ++v) {
          const int64_t row = first_row + (r + i) * kWarps;
          values[i][v] = row < rows && column[v] < columns
                             ? *reinterpret_cast<const Values*>(data + row * images.row_stride + column[v])
                             : Values{};
        }
      float row_sum[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const float row_factor = __shfl_sync(kAllLanes, own_factor, r + i);
        row_sum[i] = 0.0f;
#pragma unroll
        for (int c = 0; c < kColumns; ++c) {
          const float x = to_float(values[i][c / kPack].at[c % kPack]);
          row_sum[i] += column_factor[c] * x;
          column_sum[c] += row_factor * x;
        }
      }
      if (of_rows) {
        const float sum = sum_over_warp(row_sum, lane);
        const int64_t row = first_row + (r + lane) * kWarps;
        if (lane < kAtOnce && row < rows)
          of_rows[(image * result.column_tiles + column_tile) * rows + row] = sum;
      }
    }

    if (of_columns) {
#pragma unroll
      for (int c = 0; c < kColumns; ++c)
        partial[warp][(c / kPack * kWarp + lane) * kPack + c % kPack] = column_sum[c];
      __syncthreads();
      for (int64_t c = threadIdx.x; c < kTile && column_tile * kTile + c < columns; c += kThreads) {
        float sum = 0.0f;
        for (int w = 0; w < kWarps; ++w) sum += partial[w][c];
        of_columns[(image * result.row_tiles + row_tile) * columns + column_tile * kTile + c] = sum;
      }
      __syncthreads();  // the next tile writes there again
    }
  }
}

__global__ void __launch_bounds__(kThreads)
    finish_kernel(Images images, Contraction sums, float* pooled, float* cam) {
  const int64_t channels = pooled ? images.images * images.channels : 0;
  const int64_t pixels = cam ? images.images * images.pixels : 0;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < channels + pixels;
       i += int64_t{gridDim.x} * kThreads) {
    if (i < channels) {
      pooled[i] = sums.channels.sum(i) / static_cast<float>(images.pixels);
    } else {
      cam[i - channels] = map_value(sums.pixels.sum(i - channels), images.probe);
    }
  }
}

// The gradient to F[c, p] is scale[c] gM[p] + constant[c].
struct alignas(8) Affine {
  float scale;
  float constant;
};

// Makes the coefficients of each channel, and the weight's gradient. A block takes kThreads channels of an
// image. Images of one class are summed in their order, by the block of the first of them.
__global__ void __launch_bounds__(kThreads)
    coefficients_kernel(Images images, Contraction sums, const float* grad_pooled, Affine* coefficients,
                        float* grad_weight) {
  const int64_t chunks = (images.channels + kThreads - 1) / kThreads;
  for (int64_t job = blockIdx.x; job < images.images * chunks; job += gridDim.x) {
    const int64_t image = job / chunks;
    const int64_t channel = job % chunks * kThreads + threadIdx.x;
    const bool inside = channel < images.channels;
    const bool has_map = sums.gradients.upstream;
    if (inside && coefficients) {
      const int64_t at = image * images.channels + channel;
      float constant = grad_pooled ? grad_pooled[at] : 0.0f;
      const auto weight = has_map ? images.weight_of(image, channel) : ChannelWeight<float>{};
      if (sums.channels.data && images.probe == Probe::gradcampp)
        constant += sums.channels.sum(image, channel) * weight.by_pooled;
      coefficients[at] = {weight.value, constant / static_cast<float>(images.pixels)};
    }
    if (!grad_weight || !has_map) continue;
    const int64_t own = images.target[image];
    if (own < 0 || own >= images.classes) continue;
    float sum = 0.0f;
    bool first = true;
    // A warp compares as many targets as it has lanes.
    for (int64_t start = 0; first && start < images.images; start += kWarp) {
      const int64_t i = start + threadIdx.x % kWarp;
      const unsigned same = __ballot_sync(kAllLanes, i < images.images && images.target[i] == own);
      for (unsigned left = same; left; left &= left - 1) {
        const int64_t other = start + __ffs(static_cast<int>(left)) - 1;
        first = other >= image;
        if (!first) break;
        if (inside) sum += sums.channels.sum(other, channel) * images.weight_of(other, channel).by_weight;
      }
    }
    if (first && inside) grad_weight[own * images.channels + channel] += sum;
  }
}

// The gradient of an image as a matrix of packs, and its tiles, which blocks take. A row of this matrix may
// be several rows of the features, so that it consists of whole packs.
struct OuterTiles {
  static constexpr int kSteps = 8;  // rows a thread
  int64_t rows;
  int64_t packs;  // a row's
  int width;      // packs of a tile's row
  int slots;      // rows that a block writes at once
  int64_t row_tiles;
  int64_t column_tiles;

  OuterTiles(const Images& images, int pack, int phases)
      : rows(images.rows() / phases),
        packs(images.columns() * phases / pack),
        width(static_cast<int>(packs < kThreads ? packs : kThreads)),
        slots(kThreads / width),
        row_tiles((rows + slots * kSteps - 1) / (slots * kSteps)),
        column_tiles((packs + width - 1) / width) {}
};

// A thread keeps its columns and walks down the rows.
template <typename scalar, int kPack, int kPhases>
__global__ void __launch_bounds__(kThreads)
    outer_kernel(Images images, OuterTiles tiles, MapGradients gradients, const Affine* coefficients,
                 scalar* grad) {
  using Values = Pack<scalar, kPack>;
  const bool nchw = images.layout == Layout::nchw;
  const int slot = threadIdx.x / tiles.width, place = threadIdx.x % tiles.width;
  const int64_t per_image = tiles.row_tiles * tiles.column_tiles;
  for (int64_t job = blockIdx.x; job < images.images * per_image; job += gridDim.x) {
    const int64_t image = job / per_image;
    const int64_t tile = job % per_image;
    const int64_t first_row = tile / tiles.column_tiles * tiles.slots * OuterTiles::kSteps + slot;
    const int64_t pack = tile % tiles.column_tiles * tiles.width + place;
    if (slot >= tiles.slots || pack >= tiles.packs) continue;
    const Affine* const affine = coefficients + image * images.channels;
    const auto map_gradient = [&](int64_t pixel) {
      return gradients.upstream ? gradients.at(image * images.pixels + pixel, images.probe) : 0.0f;
    };

    int phase[kPack];   // which of the features' rows
    Affine own[kPack];  // in nhwc the column's coefficients, in nchw the map's gradient as `scale`
    int64_t column = pack * kPack;
    int current = 0;
    if (kPhases > 1) {
      current = static_cast<int>(column / images.columns());
      column %= images.columns();
    }
#pragma unroll
    for (int i = 0; i < kPack; ++i, ++column) {
      if (kPhases > 1 && column == images.columns()) {
        column = 0;
        ++current;
      }
      phase[i] = current;
      own[i] = nchw ? Affine{map_gradient(column), 0.0f} : affine[column];
    }
    for (int step = 0; step < OuterTiles::kSteps; ++step) {
      const int64_t row = first_row + step * tiles.slots;
      if (row >= tiles.rows) break;
      const Affine all_of_row = nchw ? affine[row] : Affine{map_gradient(row), 0.0f};
      Values values;
#pragma unroll
      for (int i = 0; i < kPack; ++i) {
        const Affine of_row = kPhases > 1 ? affine[row * kPhases + phase[i]] : all_of_row;
        from_float(own[i].scale * of_row.scale + (own[i].constant + of_row.constant), values.at[i]);
      }
      const int64_t at = (image * tiles.rows + row) * tiles.packs + pack;
      *reinterpret_cast<Values*>(grad + at * kPack) = values;
    }
  }
}

int64_t ceil_divide(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

template <typename scalar>
bool aligned(const void* data) {
  return reinterpret_cast<uintptr_t>(data) % sizeof(Pack<scalar>) == 0;
}

// Sets the numbers of tiles in `result`, and where its parts lie in the workspace. Reads 16-byte packs where
// every row starts at a boundary and fills half a warp with them.
template <typename scalar>
void contract(const scalar* features, const Images& images, bool channels, bool pixels, float* workspace,
              Contraction& result, void* stream) {
  constexpr int kMost = Pack<scalar>::size;
  const int64_t columns = images.columns();
  const bool whole = aligned<scalar>(features) && images.image_stride % kMost == 0 &&
                     images.row_stride % kMost == 0 && columns % kMost == 0 && columns >= kWarp / 2 * kMost;
  with_flag(whole, [&](auto packs) {
    constexpr int kPack = packs.value ? kMost : 1, kVectors = packs.value ? 1 : 2;
    static_assert(kTileColumns<kPack, kVectors> >= kLeastTile);
    result.row_tiles = ceil_divide(images.rows(), kTileRows);
    result.column_tiles = ceil_divide(columns, kTileColumns<kPack, kVectors>);
    const bool nchw = images.layout == Layout::nchw;
    result.channels = {nullptr, nchw ? result.column_tiles : result.row_tiles, images.channels};
    result.pixels = {nullptr, nchw ? result.row_tiles : result.column_tiles, images.pixels};
    if (channels) result.channels.data = workspace;
    if (pixels) result.pixels.data = workspace + images.images * result.channels.count * images.channels;
    const unsigned blocks = blocks_for(images.images * result.row_tiles * result.column_tiles);
    SAL_FAST_LAUNCH((contract_kernel<scalar, kPack, kVectors>), blocks, kThreads, stream, features, images,
                    result);
  });
}

template <int kPack, int kPhases, typename scalar>
void write_outer(const Images& images, const MapGradients& gradients, const Affine* coefficients,
                 scalar* grad, void* stream) {
  const OuterTiles tiles(images, kPack, kPhases);
  const unsigned blocks = blocks_for(images.images * tiles.row_tiles * tiles.column_tiles);
  SAL_FAST_LAUNCH((outer_kernel<scalar, kPack, kPhases>), blocks, kThreads, stream, images, tiles, gradients,
                  coefficients, grad);
}

// The sums of the tiles: over a tile's columns for each row, and over its rows for each column.
template <typename Args>
int64_t sums_floats(const Args& args) {
  return args.images * (ceil_divide(args.channels, kLeastTile) * args.pixels +
                        ceil_divide(args.pixels, kLeastTile) * args.channels);
}

}  // namespace

int64_t workspace_floats(const CamArgs& args) {
  return sums_floats(args);
}

// The sums, and two coefficients of each channel.
int64_t workspace_floats(const CamBackwardArgs& args) {
  return sums_floats(args) + 2 * args.images * args.channels;
}

int cam_cuda(const CamArgs& args, void* stream) {
  if (args.images == 0) return cudaSuccess;
  return with_scalar(args.dtype, [&](auto zero) {
    using scalar = decltype(zero);
    const auto* features = static_cast<const scalar*>(args.features);
    const auto run = [&](float* pooled, float* cam, const float* known) {
      const Images images(args, known);
      Contraction sums{};
      contract(features, images, pooled != nullptr, cam != nullptr, args.workspace, sums, stream);
      const int64_t results = images.images * ((pooled ? images.channels : 0) + (cam ? images.pixels : 0));
      SAL_FAST_LAUNCH(finish_kernel, blocks_for(results, kThreads), kThreads, stream, images, sums, pooled,
                      cam);
    };
    if (args.pooled && args.cam && args.probe == Probe::gradcampp) {
      run(args.pooled, nullptr, nullptr);
      run(nullptr, args.cam, args.pooled);
    } else {
      run(args.pooled, args.cam, args.known_pooled);
    }
  });
}

int cam_backward_cuda(const CamBackwardArgs& args, void* stream) {
  if (args.images == 0) return cudaSuccess;
  return with_scalar(args.dtype, [&](auto zero) {
    using scalar = decltype(zero);
    constexpr int kPack = Pack<scalar>::size;
    const Images images(args, args.pooled);
    auto* grad = static_cast<scalar*>(args.grad_features);
    auto* coefficients = grad ? reinterpret_cast<Affine*>(args.workspace) : nullptr;
    Contraction sums{};
    sums.gradients = {args.grad_cam, args.cam};
    if (cam_backward_reads(args)) {
      float* const parts = args.workspace + 2 * images.images * images.channels;
      contract(static_cast<const scalar*>(args.features), images, true, false, parts, sums, stream);
    }
    const int64_t chunks = ceil_divide(images.channels, kThreads);
    SAL_FAST_LAUNCH(coefficients_kernel, blocks_for(images.images * chunks), kThreads, stream, images, sums,
                    args.grad_pooled, coefficients, args.grad_weight);
    if (!grad) return;
    if (aligned<scalar>(grad) && images.columns() % kPack == 0) {
      write_outer<kPack, 1>(images, sums.gradients, coefficients, grad, stream);
    } else if (aligned<scalar>(grad) && images.rows() % kPack == 0 && images.layout == Layout::nchw) {
      write_outer<kPack, kPack>(images, sums.gradients, coefficients, grad, stream);
    } else {
      write_outer<1, 1>(images, sums.gradients, coefficients, grad, stream);
    }
  });
}

}  // namespace sal_fast
