// A block an image. The keys of its pixels are made again in every pass, from the CAM in shared memory, or
// read again through the caches; only counts are kept, in shared memory. Passes: one for each 11 bits of the
// range of keys, until all of a bin are needed (two, rarely three, for a CAM), up to three more over the
// indices where ties are to be divided, and one for the result. Bytes moved: the CAM, and the mask once from
// memory and once from the L2 cache; for topn_mask the maps, and the result.
//
// Counts are integers, so the order of the atomics does not matter. A warp looks at 32 neighbours of a row,
// which mostly fall into one bin: the lanes that agree with the first of them are counted by one atomic, so a
// plateau (the zeros of a ReLU) costs an atomic a warp. Registers: up to 64, shared memory: 25 KB, no spills
// for sm_80, sm_90, sm_100 (nvcc 13.0). Not timed on a GPU yet.
#include "mask.cuh"
#include "sal_fast/enlarge.h"
#include "sal_fast/launch/topn.h"

namespace sal_fast {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kBins = 2 * kThreads;
constexpr int kTileRows = 8;
constexpr int kLines = 1024;     // rows, and columns, whose weights are kept
constexpr int kFewCells = 1024;  // of a CAM that is kept

// No pixel has the key 0 or ~0, which belong to NaN.
constexpr unsigned kNoKey = 0;

// A pixel is in the top N if it is above `floor`, or equal to it with area - 1 - index of at least `tied`.
struct Cut {
  unsigned floor;
  unsigned tied;

  __device__ bool holds(unsigned key, unsigned inverted) const {
    return key > floor || (key == floor && inverted >= tied);
  }
};

constexpr unsigned kNoTies = ~0u;

// Rows of keys
// ---------------------------------------------------------------------------------------------------

// Each struct has height, width and column(x), whose key(row) is the key of a pixel.

template <typename scalar>
struct MapPixels {
  const scalar* map;
  int height, width;
  int64_t row_stride, column_stride;

  struct Column {
    const scalar* top;
    int64_t row_stride;
    __device__ unsigned key(int row) { return key_of(to_float(top[row * row_stride])); }
  };
  __device__ Column column(int x) const { return {map + x * column_stride, row_stride}; }
};

// Cell and weight of the first pixels of a side, which every pass needs.
struct Side {
  float weights[kLines];
  unsigned short cells[kLines];

  __device__ void fill(int count, int pixels) {
    for (int i = threadIdx.x; i < pixels && i < kLines; i += kThreads) {
      const Between at = between(i, count, pixels);
      weights[i] = at.weight;
      cells[i] = static_cast<unsigned short>(at.cell);
    }
  }
  // `next` is the cell behind, also where its weight is 0.
  __device__ Between at(int i, int count, int pixels) const {
    Between found = i < kLines ? Between{cells[i], 0, weights[i]} : between(i, count, pixels);
    found.next = found.cell + 1 < count ? found.cell + 1 : found.cell;
    return found;
  }
};

template <typename scalar>
struct EnlargedPixels {
  const scalar* cam;
  int cam_height, cam_width, height, width;
  const Side* down;
  const Side* across;

  // Keeps the four cells that it blends while it goes down. Its operations are those of the CPU's kernel.
  struct Column {
    const EnlargedPixels& image;
    Between across;
    int cell;
    float top[2], bottom[2];

    __device__ unsigned key(int row) {
      const Between at = image.down->at(row, image.cam_height, image.height);
      if (at.cell != cell) {
        cell = at.cell;
        const int64_t first = int64_t{at.cell} * image.cam_width, second = int64_t{at.next} * image.cam_width;
        top[0] = to_float(image.cam[first + across.cell]);
        top[1] = to_float(image.cam[first + across.next]);
        bottom[0] = to_float(image.cam[second + across.cell]);
        bottom[1] = to_float(image.cam[second + across.next]);
      }
      return key_of(
          blend(blend(top[0], bottom[0], at.weight), blend(top[1], bottom[1], at.weight), across.weight));
    }
  };
  __device__ Column column(int x) const { return {*this, across->at(x, cam_width, width), -1, {}, {}}; }
};

// Calls visit(row, column, key) for every pixel. A warp takes 32 neighbours of a row at a time; lanes past
// the width have kNoKey.
template <typename Pixels, typename Visit>
__device__ void for_each_pixel(const Pixels& pixels, Visit visit) {
  const int groups = (pixels.width + kWarp - 1) / kWarp;
  const int strips = (pixels.height + kTileRows - 1) / kTileRows;
  for (int tile = threadIdx.x / kWarp; tile < groups * strips; tile += kWarps) {
    const int x = tile % groups * kWarp + static_cast<int>(threadIdx.x) % kWarp;
    const bool inside = x < pixels.width;
    auto column = pixels.column(inside ? x : pixels.width - 1);
    const int first = tile / groups * kTileRows;
    const int end = first + kTileRows < pixels.height ? first + kTileRows : pixels.height;
    for (int row = first; row < end; ++row) visit(row, x, inside ? column.key(row) : kNoKey);
  }
}

template <typename Pixels>
__device__ unsigned index_of(const Pixels& pixels, int row, int column) {
  return static_cast<unsigned>(row) * static_cast<unsigned>(pixels.width) + static_cast<unsigned>(column);
}

// The selection
// --------------------------------------------------------------------------------------------------

struct Memory {
  unsigned bins[kBins];
  unsigned of_warp[kWarps];
  unsigned bin, before, count, total;  // the bin that was looked for
};

// Counts a bin for each lane of the warp that is `in`.
__device__ void count_bin(Memory& memory, unsigned bin, bool in) {
  const unsigned lanes = __ballot_sync(kAllLanes, in);
  if (lanes == 0) return;
  const int leader = __ffs(static_cast<int>(lanes)) - 1;
  const unsigned of_leader = __shfl_sync(kAllLanes, bin, leader);
  const bool follows = in && bin == of_leader;
  const unsigned followers = __ballot_sync(kAllLanes, follows);
  if (static_cast<int>(threadIdx.x) % kWarp == leader) {
    atomicAdd(&memory.bins[bin], static_cast<unsigned>(__popc(followers)));
  } else if (in && !follows) {
    atomicAdd(&memory.bins[bin], 1u);
  }
}

// Finds the bin, from the highest down, that holds the wanted-th count; also the counts before it, its own
// count, and the total, which may be less than `wanted`.
__device__ void find_bin(Memory& memory, unsigned wanted) {
  const unsigned lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const unsigned top = kBins - 1 - 2 * threadIdx.x;
  const unsigned first = memory.bins[top], second = memory.bins[top - 1];
  unsigned sum = first + second;
#pragma unroll
  for (int by = 1; by < kWarp; by *= 2) {
    const unsigned other = __shfl_up_sync(kAllLanes, sum, by);
    if (lane >= static_cast<unsigned>(by)) sum += other;
  }
  if (lane == kWarp - 1) memory.of_warp[warp] = sum;
  __syncthreads();
  for (unsigned w = 0; w < warp; ++w) sum += memory.of_warp[w];
  const unsigned before = sum - first - second;
  if (before < wanted && wanted <= sum) {
    const bool later = wanted > before + first;
    memory.bin = later ? top - 1 : top;
    memory.before = later ? before + first : before;
    memory.count = later ? second : first;
  }
  if (threadIdx.x == kThreads - 1) memory.total = sum;
  __syncthreads();
}

struct Selected {
  KeyRange range;   // all of it, or single keys
  unsigned wanted;  // how many of the keys in the range are wanted
  bool whole;       // whether these are all of them
  unsigned total;   // how many keys lie in the range that was given
};

// The range of keys that ends the `wanted` largest of those in `range`. each(visit) calls visit(key) for all
// keys, a warp at a time.
template <typename Each>
__device__ Selected select(Memory& memory, KeyRange range, unsigned wanted, Each each) {
  unsigned total = 0;
  for (bool first = true;; first = false) {
    const int shift = bin_shift(range, kBins);
    // Other threads may still read what was found before, but no longer the bins.
    for (unsigned bin = threadIdx.x; bin < kBins; bin += kThreads) memory.bins[bin] = 0;
    __syncthreads();
    each([&](unsigned key) {
      count_bin(memory, (key - range.low) >> shift, key >= range.low && key <= range.high);
    });
    __syncthreads();
    find_bin(memory, wanted);
    if (first) total = memory.total;
    if (wanted > total) return {range, wanted, false, total};
    wanted -= memory.before;
    range = range_of_bin(range, memory.bin, shift);
    if (wanted == memory.count || shift == 0) return {range, wanted, wanted == memory.count, total};
  }
}

// The cut below the n-th largest pixel, 0 < n < area. False when keys lie outside the range.
template <typename Pixels>
__device__ bool cut_top(Memory& memory, const Pixels& pixels, KeyRange range, unsigned n, Cut& cut) {
  const auto area = static_cast<unsigned>(pixels.height * pixels.width);
  const Selected found = select(memory, range, n, [&](auto visit) {
    for_each_pixel(pixels, [&](int, int, unsigned key) { visit(key); });
  });
  if (found.total != area) return false;
  cut = {found.range.low - 1, kNoTies};
  if (found.whole) return true;
  // Among the pixels equal to the N-th, those of the lowest index are taken, which have the largest
  // area - 1 - index. The keys are counted from 1, because 0 stands for no pixel.
  const unsigned floor = found.range.low;
  const Selected ties = select(memory, {1, area}, found.wanted, [&](auto visit) {
    for_each_pixel(pixels, [&](int row, int column, unsigned key) {
      const unsigned index = index_of(pixels, row, column);
      visit(key == floor ? area - index : kNoKey);
    });
  });
  cut = {floor, ties.range.low - 1};
  return true;
}

template <typename Pixels, typename Visit>
__device__ void for_each_selected(const Pixels& pixels, Cut cut, Visit visit) {
  const auto area = static_cast<unsigned>(pixels.height * pixels.width);
  for_each_pixel(pixels, [&](int row, int column, unsigned key) {
    const unsigned index = index_of(pixels, row, column);
    visit(row, column, key != kNoKey && cut.holds(key, area - 1 - index));
  });
}

// The ops
// --------------------------------------------------------------------------------------------------------

template <typename scalar>
__global__ void __launch_bounds__(kThreads, 1) topn_mask_kernel(TopnMaskArgs args) {
  __shared__ Memory memory;
  const auto height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const int64_t area = args.height * args.width, words = (args.width + kWarp - 1) / kWarp;
  for (int64_t image = blockIdx.x; image < args.images; image += gridDim.x) {
    const MapPixels<scalar> pixels{static_cast<const scalar*>(args.maps) + image * args.image_stride, height,
                                   width, args.row_stride, args.column_stride};
    const int64_t n = args.counts ? args.counts[image * args.counts_stride] : args.count;
    // If n is 0 or all pixels, this only finds out whether there is a NaN.
    const auto wanted = static_cast<unsigned>(n > 0 && n < area ? n : 1);
    Cut cut{~0u, kNoTies};
    bool valid = n >= 0 && n <= area;
    if (valid) valid = cut_top(memory, pixels, {kLowestKey, kHighestKey}, wanted, cut);
    if (!valid || n == 0) cut = {~0u, kNoTies};
    if (valid && n == area) cut = {kNoKey, kNoTies};
    if (threadIdx.x == 0) args.valid[image] = valid;
    if (args.out_type == MaskType::bits) {
      unsigned* const out = static_cast<unsigned*>(args.out) + image * args.height * words;
      for_each_selected(pixels, cut, [&](int row, int column, bool in) {
        const unsigned word = __ballot_sync(kAllLanes, in);
        if (column % kWarp == 0) out[row * words + column / kWarp] = word;
      });
    } else {
      unsigned char* const out = static_cast<unsigned char*>(args.out) + image * area;
      for_each_selected(pixels, cut, [&](int row, int column, bool in) {
        if (column < width) out[int64_t{row} * width + column] = in;
      });
    }
  }
}

template <typename scalar, bool kShared>
__global__ void __launch_bounds__(kThreads, 1) topn_dice_kernel(TopnDiceArgs args) {
  __shared__ Memory memory;
  __shared__ Side down, across;
  __shared__ float cam[kShared ? kFewCells : 1];
  __shared__ unsigned low, high, size, hits;
  const auto height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const auto cam_height = static_cast<int>(args.cam_height), cam_width = static_cast<int>(args.cam_width);
  const int cells = cam_height * cam_width;
  const auto area = static_cast<unsigned>(height * width);
  const MaskPixels mask{args.mask, height, width};
  down.fill(cam_height, height);
  across.fill(cam_width, width);
  for (int64_t image = blockIdx.x; image < args.images; image += gridDim.x) {
    if (threadIdx.x == 0) {
      low = ~0u;
      high = size = hits = 0;
    }
    __syncthreads();
    const scalar* const given = static_cast<const scalar*>(args.cam) + image * cells;
    unsigned lowest = ~0u, highest = 0;
    for (int i = threadIdx.x; i < cells; i += kThreads) {
      const float cell = to_float(given[i]);
      if constexpr (kShared) cam[i] = cell;
      const unsigned key = key_of(cell);
      lowest = key < lowest ? key : lowest;
      highest = key > highest ? key : highest;
    }
    if (lowest <= highest) {
      atomicMin(&low, lowest);
      atomicMax(&high, highest);
    }
    add_to_block(mask.count<kThreads>(image), &size);
    __syncthreads();

    const KeyRange range{low, high};
    const unsigned n = size;
    const bool finite = range.low >= key_of(-kLargestCell) && range.high <= key_of(kLargestCell);
    using Cell = std::conditional_t<kShared, float, scalar>;
    const Cell* source;
    if constexpr (kShared) {
      source = cam;
    } else {
      source = given;
    }
    const EnlargedPixels<Cell> pixels{source, cam_height, cam_width, height, width, &down, &across};
    if (finite && n > 0) {
      Cut cut{kNoKey, kNoTies};
      if (n < area) cut_top(memory, pixels, range, n, cut);
      unsigned found = 0;
      for_each_selected(pixels, cut, [&](int row, int column, bool in) {
        if (in) found += mask.at(image, row, column);
      });
      add_to_block(found, &hits);
    }
    __syncthreads();
    if (threadIdx.x == 0) {
      args.dice[image] = finite ? dice_of(hits, 2 * int64_t{n}, args.empty) : kInfinity - kInfinity;
      args.hits[image] = hits;
      args.n[image] = n;
    }
  }
}

}  // namespace

int topn_mask_cuda(const TopnMaskArgs& args, void* stream) {
  if (args.images == 0) return cudaSuccess;
  return with_scalar(args.dtype, [&](auto zero) {
    SAL_FAST_LAUNCH((topn_mask_kernel<decltype(zero)>), blocks_for(args.images), kThreads, stream, args);
  });
}

int topn_dice_cuda(const TopnDiceArgs& args, void* stream) {
  if (args.images == 0) return cudaSuccess;
  return with_scalar(args.dtype, [&](auto zero) {
    with_flag(args.cam_height * args.cam_width <= kFewCells, [&](auto shared) {
      SAL_FAST_LAUNCH((topn_dice_kernel<decltype(zero), shared.value>), blocks_for(args.images), kThreads,
                      stream, args);
    });
  });
}

}  // namespace sal_fast
