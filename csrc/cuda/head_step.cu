// Four launches at most. `maps_kernel` has a block for each image and head: it makes the map, the saliency
// loss and its gradient to the map, and what this adds to the gradient of the weight. `logits_kernel` makes
// the logits, the cross-entropy and its gradient to the logits. `gradient_kernel` adds up what the images
// leave, in an order that depends on nothing but the sizes, so that there are no atomics and the bits are the
// same every time. A class that must be predicted, and gradcam++, need the pooled features first, which
// `pool_kernel` makes by a read more.
//
// Bytes: the features once from memory. The blocks of an image's heads are neighbours, and a block reads its
// features twice, so that the other reads come from the L2 cache. Derivation:
// sal_fast/ops/head_step/README.md. Not timed on a GPU yet.
#include <cstddef>

#include "sal_fast/head_step.h"
#include "saliency_loss_few.cuh"

namespace sal_fast {
namespace {

constexpr int kWarps = kThreads / kWarp;
constexpr int kSumThreads = 256;  // of the kernels without a block an image
constexpr int kSumWarps = kSumThreads / kWarp;

static_assert(kHeadStepMostPixels <= kFewPixels);

// Each image writes its part of the sums here. Row h * images + i belongs to head h and image i.
struct Work {
  float* pooled;          // [images][channels]
  float* terms;           // [rows][channels]: the gradient through the map to a class's row of the weight
  float* slopes;          // [rows][classes]: the gradient to the logits
  float* classification;  // [rows]: the two terms of the loss, each with its factor of alpha
  float* saliency;        // [rows]
  int* map_class;         // [rows]: the predicted class
  int* term_class;        // [rows]: the class of `terms`, or -1 for none

  static int64_t floats(const HeadStepArgs& args) {
    return args.images * args.channels + args.heads * args.images * (args.channels + args.classes + 4);
  }
  explicit Work(const HeadStepArgs& args) {
    const int64_t rows = args.heads * args.images;
    float* end = args.workspace;
    const auto take = [&](int64_t count) {
      float* const begin = end;
      end += count;
      return begin;
    };
    pooled = take(args.images * args.channels);
    terms = take(rows * args.channels);
    slopes = take(rows * args.classes);
    classification = take(rows);
    saliency = take(rows);
    map_class = reinterpret_cast<int*>(take(rows));
    term_class = reinterpret_cast<int*>(take(rows));
  }
};

__device__ inline float not_a_number() {
  return 0.0f * kInfinity;
}

template <typename scalar, int kPack>
constexpr int kTileColumns = kWarp * kPack;

// The most columns of a tile: those of 16-byte packs of half types.
constexpr int kMostTile = kWarp * 8;

// Reads the features of an image, [pixels, channels], by all threads of the block. If kRows,
// of_pixels[p] = sum over channels of factor(c) F[p, c], in shared memory, to be read after a barrier. If
// kColumns, write(c, sum over pixels of weight(p) F[p, c]) is called once for each channel.
template <bool kRows, bool kColumns, int kPack, typename scalar, typename Factor, typename Weight,
          typename Write>
__device__ void contract(const scalar* data, int pixels, int64_t channels, Factor factor, float* of_pixels,
                         Weight weight, float (&partial)[kWarps][kMostTile], Write write) {
  using Values = Pack<scalar, kPack>;
  constexpr int kTile = kTileColumns<scalar, kPack>;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int64_t first = 0; first < channels; first += kTile) {
    const int64_t column = first + lane * kPack;
    const bool inside = column < channels;
    float factors[kPack], sums[kPack] = {};
#pragma unroll
    for (int j = 0; j < kPack; ++j) factors[j] = kRows && inside ? factor(column + j) : 0.0f;
#pragma unroll 4
    for (int p = warp; p < pixels; p += kWarps) {
      const Values values =
          inside ? *reinterpret_cast<const Values*>(data + p * channels + column) : Values{};
      const float of_column = kColumns ? weight(p) : 0.0f;
      float product = 0;
#pragma unroll
      for (int j = 0; j < kPack; ++j) {
        const float x = to_float(values.at[j]);
        product += factors[j] * x;
        sums[j] += of_column * x;
      }
      if constexpr (kRows) {
        product = merge_lanes<kWarp>(product, Sum{});
        if (lane == 0) of_pixels[p] = first == 0 ? product : of_pixels[p] + product;
      }
    }
    if constexpr (kColumns) {
#pragma unroll
      for (int j = 0; j < kPack; ++j) partial[warp][lane * kPack + j] = sums[j];
      __syncthreads();
      for (int c = threadIdx.x; c < kTile && first + c < channels; c += kThreads) {
        float sum = 0;
        for (int w = 0; w < kWarps; ++w) sum += partial[w][c];
        write(first + c, sum);
      }
      __syncthreads();  // the next tile writes there again
    }
  }
}

template <typename scalar>
__device__ const scalar* features_of(const HeadStepArgs& args, int64_t row) {
  return static_cast<const scalar*>(args.features) + row * args.height * args.width * args.channels;
}

template <typename scalar, int kPack>
__global__ void __launch_bounds__(kThreads, 1) pool_kernel(HeadStepArgs args, Work work) {
  __shared__ float partial[kWarps][kMostTile];
  const int pixels = static_cast<int>(args.height * args.width);
  for (int64_t i = blockIdx.x; i < args.images; i += gridDim.x) {
    const int64_t row = stored_image(args, i);
    float* const out = work.pooled + i * args.channels;
    if (row < 0) {
      for (int64_t c = threadIdx.x; c < args.channels; c += kThreads) out[c] = not_a_number();
      continue;
    }
    contract<false, true, kPack>(
        features_of<scalar>(args, row), pixels, args.channels, [](int64_t) { return 0.0f; }, nullptr,
        [](int) { return 1.0f; }, partial, [&](int64_t c, float sum) { out[c] = sum / pixels; });
  }
}

// A block does an image and a head. The sums over warps and what the loss needs are never needed at once;
// the map and its gradient lie where only the loss writes.
union MapMemory {
  FewMemory loss;
  float partial[kWarps][kMostTile];
};
static_assert(sizeof(MapMemory::partial) <= offsetof(FewMemory, blurred));

template <typename scalar, int kPack>
__global__ void __launch_bounds__(kThreads, 1)
    maps_kernel(HeadStepArgs args, SaliencyLossArgs maps, Work work, Taps<kFewTaps> all_taps,
                SsimConstants constants, bool known_pooled) {
  __shared__ float taps[kFewTaps];
  __shared__ MapMemory memory;
  float *const map = memory.loss.cam(), *const slopes = memory.loss.blurred[4];
  const int pixels = static_cast<int>(args.height * args.width);
  if (threadIdx.x < kFewTaps) taps[threadIdx.x] = all_taps.at[threadIdx.x];

  for (int64_t job = blockIdx.x; job < args.images * args.heads; job += gridDim.x) {
    const int64_t i = job / args.heads, head = job % args.heads, at = head * args.images + i;
    const int64_t row = stored_image(args, i), label = label_of(args, row);
    const int64_t k = args.cam_class == CamClass::labelled || label < 0 ? label : work.map_class[at];
    float* const pooled = work.pooled + i * args.channels;
    float* const cam = args.cam + at * pixels;
    const bool compared = k >= 0 && has_target(args, row) && args.alpha[head] < 1.0f;
    if (threadIdx.x == 0) work.term_class[at] = compared ? static_cast<int>(k) : -1;
    if (threadIdx.x == 0 && !compared) work.saliency[at] = 0;
    if (row < 0) {
      for (int p = threadIdx.x; p < pixels; p += kThreads) cam[p] = not_a_number();
      if (!known_pooled && head == 0)
        for (int64_t c = threadIdx.x; c < args.channels; c += kThreads) pooled[c] = not_a_number();
      continue;
    }

    const auto weight_of = [&](int64_t c) {
      const float w = k < 0 ? not_a_number() : args.weight[(head * args.classes + k) * args.channels + c];
      return channel_weight(w, known_pooled ? pooled[c] : 0.0f, args.probe, pixels);
    };
    const auto* const data = features_of<scalar>(args, row);
    const auto factor = [&](int64_t c) { return weight_of(c).value; };
    const auto ones = [](int) { return 1.0f; };
    const auto write_pooled = [&](int64_t c, float sum) { pooled[c] = sum / pixels; };
    if (!known_pooled && head == 0) {
      contract<true, true, kPack>(data, pixels, args.channels, factor, map, ones, memory.partial,
                                  write_pooled);
    } else {
      contract<true, false, kPack>(data, pixels, args.channels, factor, map, ones, memory.partial,
                                   write_pooled);
    }
    __syncthreads();
    for (int p = threadIdx.x; p < pixels; p += kThreads) cam[p] = map[p] = map_value(map[p], args.probe);
    if (!compared) {
      __syncthreads();  // the next map is written there
      continue;
    }

    const float share = 1.0f - args.alpha[head];
    compare_few(maps, row, taps, constants, true, memory.loss, work.saliency + at, [&](int p, float slope) {
      slopes[p] = sum_gradient(share / static_cast<float>(args.images) * slope, cam[p], args.probe);
    });
    if (threadIdx.x == 0) work.saliency[at] *= share;
    __syncthreads();
    float* const terms = work.terms + at * args.channels;
    contract<false, true, kPack>(
        data, pixels, args.channels, factor, nullptr, [&](int p) { return slopes[p]; }, memory.partial,
        [&](int64_t c, float sum) { terms[c] = sum * weight_of(c).by_weight; });
  }
}

// The cross-entropy of an image, and its gradient to the logits, each times alpha, by a warp.
__device__ void classify(const HeadStepArgs& args, const Work& work, int64_t head, int64_t i) {
  const int lane = threadIdx.x % kWarp;
  const int64_t at = head * args.images + i, label = label_of(args, stored_image(args, i));
  const float* const logits = args.logits + at * args.classes;
  float* const slopes = work.slopes + at * args.classes;
  const float alpha = args.alpha[head];
  if (label < 0 || alpha == 0.0f) {
    const float value = label < 0 ? not_a_number() : 0.0f;
    for (int64_t k = lane; k < args.classes; k += kWarp) slopes[k] = value;
    if (lane == 0) work.classification[at] = value;
    return;
  }
  const TargetShares shares(args);
  const auto share_of = [&](int64_t k) {
    const float weight = args.class_weight ? args.class_weight[k] : 1.0f;
    return weight * (k == label ? shares.own + shares.others : shares.others);
  };
  float largest = -kInfinity;
  for (int64_t k = lane; k < args.classes; k += kWarp) largest = Max{}(largest, logits[k]);
  largest = merge_lanes<kWarp>(largest, Max{});
  float exponentials = 0, total = 0, distance = 0;
  for (int64_t k = lane; k < args.classes; k += kWarp) {
    const float below = logits[k] - largest, q = share_of(k);
    exponentials += exp_clamped(below);
    total += q;
    distance += q == 0.0f ? 0.0f : q * below;
  }
  exponentials = merge_lanes<kWarp>(exponentials, Sum{});
  total = merge_lanes<kWarp>(total, Sum{});
  distance = merge_lanes<kWarp>(distance, Sum{});
  if (lane == 0) work.classification[at] = alpha * (total * logf(exponentials) - distance);
  const float scale = alpha / static_cast<float>(args.images), by_exponential = total / exponentials;
  for (int64_t k = lane; k < args.classes; k += kWarp)
    slopes[k] = scale * (by_exponential * exp_clamped(logits[k] - largest) - share_of(k));
}

// The class of the largest logit, the lowest on a tie, by a warp.
__device__ int predicted(const float* logits, int64_t classes) {
  struct Best {
    float value;
    int k;
  };
  const int lane = threadIdx.x % kWarp;
  Best best{-kInfinity, static_cast<int>(classes)};
  for (int64_t k = lane; k < classes; k += kWarp)
    if (logits[k] > best.value || best.k == classes) best = {logits[k], static_cast<int>(k)};
  best = merge_lanes<kWarp>(best, [](const Best& a, const Best& b) {
    return a.value > b.value || (!(b.value > a.value) && a.k < b.k) ? a : b;
  });
  return best.k;
}

// A block does a few images of a head, so that a weight is read once for all of them. A warp takes every
// kSumWarps-th class, then an image.
__global__ void __launch_bounds__(kSumThreads) logits_kernel(HeadStepArgs args, Work work) {
  constexpr int kTogether = 4;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int64_t groups = (args.images + kTogether - 1) / kTogether;
  for (int64_t job = blockIdx.x; job < groups * args.heads; job += gridDim.x) {
    const int64_t head = job / groups, first = job % groups * kTogether;
    const int64_t count = args.images - first < kTogether ? args.images - first : kTogether;
    float* const logits = args.logits + (head * args.images + first) * args.classes;
    for (int64_t k = warp; k < args.classes; k += kSumWarps) {
      const float* const weight = args.weight + (head * args.classes + k) * args.channels;
      float sums[kTogether] = {};
      for (int64_t c = lane; c < args.channels; c += kWarp)
#pragma unroll
        for (int i = 0; i < kTogether; ++i)
          if (i < count) sums[i] += weight[c] * work.pooled[(first + i) * args.channels + c];
#pragma unroll
      for (int i = 0; i < kTogether; ++i) {
        const float sum = merge_lanes<kWarp>(sums[i], Sum{});
        if (lane == 0 && i < count) logits[i * args.classes + k] = sum + args.bias[head * args.classes + k];
      }
    }
    __syncthreads();
    if (warp < count) {
      classify(args, work, head, first + warp);
      if (args.cam_class == CamClass::predicted) {
        const int k = predicted(logits + warp * args.classes, args.classes);
        if (lane == 0) work.map_class[head * args.images + first + warp] = k;
      }
    }
  }
}

// Tiles of a head's gradient, [classes, channels + 1]: the last column is the bias, as if there were a
// channel of ones. A thread takes a column of a few classes; a warp takes every kSumWarps-th image. The
// blocks behind the tiles add up the losses.
constexpr int kTileClasses = 4;

struct GradientTiles {
  int64_t down;
  int64_t across;

  SAL_FAST_HD explicit GradientTiles(const HeadStepArgs& args)
      : down((args.classes + kTileClasses - 1) / kTileClasses), across(args.channels / kWarp + 1) {}
};

__device__ void add_losses(const HeadStepArgs& args, const Work& work, int64_t head) {
  float sum = 0;
  for (int64_t i = threadIdx.x; i < args.images; i += kSumThreads) {
    const int64_t at = head * args.images + i;
    sum += work.classification[at] + work.saliency[at];
  }
  sum = merge_lanes<kSumThreads>(sum, Sum{});
  if (threadIdx.x == 0) args.loss[head] = args.images > 0 ? sum / static_cast<float>(args.images) : 0.0f;
}

__global__ void __launch_bounds__(kSumThreads) gradient_kernel(HeadStepArgs args, Work work) {
  __shared__ float partial[kSumWarps][kTileClasses][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const GradientTiles tiles(args);
  const int64_t per_head = tiles.down * tiles.across;
  for (int64_t job = blockIdx.x; job < args.heads * (per_head + 1); job += gridDim.x) {
    if (job >= args.heads * per_head) {
      add_losses(args, work, job - args.heads * per_head);
      continue;
    }
    const int64_t head = job / per_head, k = job % per_head / tiles.across * kTileClasses;
    const int64_t c = job % per_head % tiles.across * kWarp + lane;
    float sums[kTileClasses] = {};
    for (int64_t i = warp; c <= args.channels && i < args.images; i += kSumWarps) {
      const int64_t at = head * args.images + i;
      const bool of_weight = c < args.channels;
      const float x = of_weight ? work.pooled[i * args.channels + c] : 1.0f;
      const int own = work.term_class[at];
#pragma unroll
      for (int j = 0; j < kTileClasses; ++j) {
        if (k + j >= args.classes) continue;
        sums[j] += work.slopes[at * args.classes + k + j] * x;
        if (of_weight && own == k + j) sums[j] += work.terms[at * args.channels + c];
      }
    }
#pragma unroll
    for (int j = 0; j < kTileClasses; ++j) partial[warp][j][lane] = sums[j];
    __syncthreads();
    if (warp < kTileClasses && k + warp < args.classes && c <= args.channels) {
      float sum = 0;
      for (int w = 0; w < kSumWarps; ++w) sum += partial[w][warp][lane];
      const int64_t out = head * args.classes + k + warp;
      (c < args.channels ? args.grad_weight[out * args.channels + c] : args.grad_bias[out]) = sum;
    }
    __syncthreads();  // the next tile writes there again
  }
}

// Calls run with the number of neighbours that a thread reads at once, as a constant: 16 bytes of them where
// every row of features starts at a boundary.
template <typename scalar, typename Run>
void with_pack(const HeadStepArgs& args, Run run) {
  constexpr int kMost = Pack<scalar>::size;
  const bool whole = reinterpret_cast<uintptr_t>(args.features) % sizeof(Pack<scalar>) == 0;
  with_flag(whole && args.channels % kMost == 0,
            [&](auto packs) { run(std::integral_constant<int, packs.value ? kMost : 1>{}); });
}

}  // namespace

int64_t workspace_floats(const HeadStepArgs& args) {
  return Work::floats(args);
}

int head_step_cuda(const HeadStepArgs& args, void* stream) {
  if (args.height * args.width > kHeadStepMostPixels) return cudaErrorInvalidValue;
  const Work work(args);
  const SaliencyLossArgs maps = without_unused(saliency_args(args));
  const bool pool_first = pools_first(args);
  const auto logits = [&] {
    SAL_FAST_LAUNCH(logits_kernel, blocks_for(args.images * args.heads, 4), kSumThreads, stream, args, work);
  };
  return with_scalar(args.dtype, [&](auto zero) {
    using scalar = decltype(zero);
    if (args.images > 0) {
      with_pack<scalar>(args, [&](auto pack) {
        if (pool_first) {
          SAL_FAST_LAUNCH((pool_kernel<scalar, pack.value>), blocks_for(args.images), kThreads, stream, args,
                          work);
          logits();
        }
        SAL_FAST_LAUNCH((maps_kernel<scalar, pack.value>), blocks_for(args.images * args.heads), kThreads,
                        stream, args, maps, work, taps_of<kFewTaps>(maps.window, maps.sigma),
                        ssim_constants(1.0, maps.window), pool_first);
        if (!pool_first) logits();
      });
    }
    const GradientTiles tiles(args);
    SAL_FAST_LAUNCH(gradient_kernel, blocks_for(args.heads * (tiles.down * tiles.across + 1)), kSumThreads,
                    stream, args, work);
  });
}

}  // namespace sal_fast
