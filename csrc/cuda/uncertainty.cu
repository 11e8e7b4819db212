// Bytes moved: the forward moves rows * columns * sizeof(scalar) + 4 * rows. The backward moves the same and
// the gradient; its second read of a row comes from the L1 or L2 cache. There is one exponential for each
// element and one for each vector. Not timed on a GPU yet.
#include "block.cuh"
#include "sal_fast/uncertainty.h"

namespace sal_fast {
namespace {

constexpr int kThreads = 256;  // a block
// A row cut into the columns before the first 16-byte boundary, whole packs, and the rest.
struct Split {
  int64_t head;
  int64_t packs;
};

template <typename scalar>
__device__ Split split_row(const scalar* row, int64_t columns) {
  const int64_t misaligned = reinterpret_cast<uintptr_t>(row) % sizeof(Pack<scalar>) / sizeof(scalar);
  const int64_t wanted = misaligned == 0 ? 0 : Pack<scalar>::size - misaligned;
  const int64_t head = wanted < columns ? wanted : columns;
  return {head, (columns - head) / Pack<scalar>::size};
}

// Calls visit(x, j) with a pack's values and its first column, and with single values before and after the
// packs. Each of the kLanes threads sees its columns in ascending order.
template <int kLanes, typename scalar, typename Visit>
__device__ void for_each_value(const scalar* row, int64_t columns, Split split, int lane, Visit visit) {
  constexpr int size = Pack<scalar>::size;
  const auto visit_one = [&](int64_t j) {
    const float x[1] = {to_float(row[j])};
    visit(x, j);
  };
  if (lane < split.head) visit_one(lane);
  for (int64_t k = lane; k < split.packs; k += kLanes) {
    const int64_t j = split.head + k * size;
    const Pack<scalar> pack = *reinterpret_cast<const Pack<scalar>*>(row + j);
    float x[size];
#pragma unroll
    for (int i = 0; i < size; ++i) x[i] = to_float(pack.at[i]);
    visit(x, j);
  }
  for (int64_t j = split.head + split.packs * size + lane; j < columns; j += kLanes) visit_one(j);
}

template <bool kWeighted, int kLanes, typename scalar>
__device__ RowStats<float> row_stats(const scalar* row, int64_t columns, Split split, int lane) {
  RowStats<float> stats;
  for_each_value<kLanes>(row, columns, split, lane,
                         [&](const auto& x, int64_t) { sal_fast::add<kWeighted>(stats, x); });
  return merge_lanes<kLanes>(stats, [](const auto& a, const auto& b) { return merge<kWeighted>(a, b); });
}

// kLanes threads do a row. All threads of a block make equally many trips, so that each reaches every shuffle
// and barrier; threads past the last row work on a row without columns.
template <bool kWeighted, int kLanes, typename scalar>
__global__ void __launch_bounds__(kThreads) forward_kernel(const scalar* data, int64_t rows, int64_t columns,
                                                           int64_t row_stride, Kind kind, float* out) {
  constexpr int kRows = kThreads / kLanes;
  const int lane = threadIdx.x % kLanes;
  for (int64_t first = int64_t{blockIdx.x} * kRows; first < rows; first += int64_t{gridDim.x} * kRows) {
    const int64_t i = first + threadIdx.x / kLanes;
    const bool inside = i < rows;
    const scalar* row = data + (inside ? i * row_stride : 0);
    const int64_t used = inside ? columns : 0;
    const auto stats = row_stats<kWeighted, kLanes>(row, used, split_row(row, used), lane);
    if (inside && lane == 0) out[i] = uncertainty_of(stats, kind);
  }
}

template <bool kWeighted, int kLanes, typename scalar>
__global__ void __launch_bounds__(kThreads)
    backward_kernel(const scalar* data, int64_t rows, int64_t columns, int64_t row_stride, Kind kind,
                    const float* upstream, int64_t upstream_stride, scalar* grad) {
  constexpr int kRows = kThreads / kLanes;
  const int lane = threadIdx.x % kLanes;
  for (int64_t first = int64_t{blockIdx.x} * kRows; first < rows; first += int64_t{gridDim.x} * kRows) {
    const int64_t i = first + threadIdx.x / kLanes;
    const bool inside = i < rows;
    const scalar* row = data + (inside ? i * row_stride : 0);
    scalar* out = grad + (inside ? i * columns : 0);
    const int64_t used = inside ? columns : 0;
    const Split split = split_row(row, used);
    const auto stats = row_stats<kWeighted, kLanes>(row, used, split, lane);
    const RowGradient gradient = gradient_of(stats, kind, inside ? upstream[i * upstream_stride] : 0.0f);

    // Rows of the logits may be strided, so a gradient row's own alignment decides how it is written.
    const bool aligned = reinterpret_cast<uintptr_t>(out + split.head) % sizeof(Pack<scalar>) == 0;
    TopColumns top;
    for_each_value<kLanes>(row, used, split, lane, [&](const auto& x, int64_t j) {
      constexpr int count = sizeof(x) / sizeof(float);
      scalar values[count];
#pragma unroll
      for (int c = 0; c < count; ++c) {
        from_float(gradient_at(x[c], gradient), values[c]);
        if (!kWeighted) top.add(x[c], j + c, stats);
      }
      if (count == Pack<scalar>::size && aligned) {
        Pack<scalar> pack;
#pragma unroll
        for (int c = 0; c < count; ++c) pack.at[c] = values[c];
        *reinterpret_cast<Pack<scalar>*>(out + j) = pack;
      } else {
#pragma unroll
        for (int c = 0; c < count; ++c) out[j + c] = values[c];
      }
    });
    if constexpr (!kWeighted) {
      const bool tied = stats.max == stats.second;
      top = merge_lanes<kLanes>(top, [=](const auto& a, const auto& b) { return merge(a, b, tied); });
      // These stores must follow every lane's own stores to the row. The barriers of a block-wide merge order
      // them, and this barrier orders those of a warp.
      __syncwarp();
      if (lane == 0 && top.first < used) from_float(gradient.largest, out[top.first]);
      if (lane == 0 && kind == Kind::margin && top.second < used)
        from_float(gradient.second, out[top.second]);
    }
  }
}

// Threads a row: enough for two or more packs each, so that the merges stay a small part.
constexpr int64_t kFewColumns = 128;
constexpr int64_t kManyColumns = 8192;

// Calls run with a value of the logits' type, whether the kind needs the weighted sum, and the threads a row.
template <typename Args, typename Run>
int dispatch(const Args& args, Run run) {
  if (args.rows == 0) return cudaSuccess;
  return with_scalar(args.dtype, [&](auto zero) {
    with_flag(args.kind == Kind::entropy, [&](auto weighted) {
      if (args.columns <= kFewColumns) {
        run(zero, weighted, std::integral_constant<int, 8>{});
      } else if (args.columns <= kManyColumns) {
        run(zero, weighted, std::integral_constant<int, kWarp>{});
      } else {
        run(zero, weighted, std::integral_constant<int, kThreads>{});
      }
    });
  });
}

}  // namespace

int uncertainty_cuda(const UncertaintyArgs& args, void* stream) {
  return dispatch(args, [&](auto zero, auto weighted, auto lanes) {
    using scalar = decltype(zero);
    SAL_FAST_LAUNCH((forward_kernel<weighted.value, lanes.value, scalar>),
                    blocks_for(args.rows, kThreads / lanes.value), kThreads, stream,
                    static_cast<const scalar*>(args.logits), args.rows, args.columns, args.row_stride,
                    args.kind, args.out);
  });
}

int uncertainty_backward_cuda(const UncertaintyBackwardArgs& args, void* stream) {
  return dispatch(args, [&](auto zero, auto weighted, auto lanes) {
    using scalar = decltype(zero);
    SAL_FAST_LAUNCH((backward_kernel<weighted.value, lanes.value, scalar>),
                    blocks_for(args.rows, kThreads / lanes.value), kThreads, stream,
                    static_cast<const scalar*>(args.logits), args.rows, args.columns, args.row_stride,
                    args.kind, args.upstream, args.upstream_stride, static_cast<scalar*>(args.grad));
  });
}

}  // namespace sal_fast
