// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: the forward moves rows * columns * sizeof(scalar) + 4 * rows. The backward moves twice the
// logits, whose second read comes from the L1 or L2 cache. There is one exponential for each element, and one
// for every kUnroll elements to rescale.
#include "parallel.h"
#include "vec.h"
// vec.h comes first: the templates below find its overloads by ordinary lookup.
#include "sal_fast/uncertainty.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

// The vectors for one rescaling. More mean fewer exponentials, as long as they fit in the registers.
constexpr int kUnroll = kLanes == 16 ? 8 : 4;

// Rows as short as this are cheaper with a lane for each row.
constexpr int64_t kShort = 32;

template <bool kWeighted>
RowStats<float> reduce(RowStats<Vec> lanes) {
  RowStats<float> row;
  row.max = max(lanes.max);
  const Vec shift = Vec{} + shift_of(row.max);
  rescale<kWeighted>(lanes, shift);
  // The largest value of every lane enters the sums, except for one lane that has the row's largest.
  const auto is_largest = lanes.max == Vec{} + row.max;
  const float ties = sum(is_largest ? Vec{} + 1.0f : Vec{});
  const Vec losers = is_largest ? Vec{} - kInfinity : lanes.max;
  add_term<kWeighted>(lanes, losers, shift);
  row.second = ties > 1.0f ? row.max : max(larger(losers, lanes.second));
  row.others = sum(lanes.others) + (ties - 1.0f);
  row.weighted = sum(lanes.weighted);
  return row;
}

// Adds the last columns of a row, at most `count` vectors. `length` is that of the whole row.
template <bool kWeighted, int count, typename scalar>
void add_last(RowStats<Vec>& lanes, const scalar* row, int64_t columns, int64_t length) {
  Vec x[count];
  for (int i = 0; i < count; ++i) {
    const int64_t left = columns - i * kLanes;
    x[i] = left > 0 && left < kLanes && length >= kLanes ? load_last(row + columns, left)
                                                         : load_padded(row + i * kLanes, left);
  }
  add<kWeighted>(lanes, x);
}

template <bool kWeighted, typename scalar>
RowStats<float> row_stats(const scalar* row, int64_t length) {
  RowStats<Vec> lanes;
  int64_t columns = length;
  for (; columns >= kUnroll * kLanes; columns -= kUnroll * kLanes, row += kUnroll * kLanes) {
    Vec x[kUnroll];
    for (int i = 0; i < kUnroll; ++i) x[i] = load(row + i * kLanes);
    add<kWeighted>(lanes, x);
  }
  if (columns > kUnroll / 2 * kLanes) {
    add_last<kWeighted, kUnroll>(lanes, row, columns, length);
  } else if (columns > kLanes) {
    add_last<kWeighted, kUnroll / 2>(lanes, row, columns, length);
  } else if (columns > 0) {
    add_last<kWeighted, 1>(lanes, row, columns, length);
  }
  return reduce<kWeighted>(lanes);
}

template <typename scalar>
TopColumns top_columns(const scalar* row, int64_t columns, const RowStats<float>& stats) {
  const Vec lowest = Vec{} + stats.second;
  TopColumns top;
  for (int64_t j = 0; j < columns; j += kLanes) {
    const Vec x = load_padded(row + j, columns - j);
    if (!any(x >= lowest)) continue;
    for (int64_t i = 0; i < kLanes && j + i < columns; ++i) top.add(x[i], j + i, stats);
  }
  return top;
}

// Short rows have a lane each, so that nothing is reduced across lanes.
template <bool kWeighted, typename scalar>
void forward_short(const UncertaintyArgs& args, int64_t begin, int64_t end) {
  const auto* data = static_cast<const scalar*>(args.logits);
  for (int64_t i = begin; i < end; i += kLanes) {
    const int rows = static_cast<int>(end - i < kLanes ? end - i : kLanes);
    RowStats<Vec> lanes;
    for (int64_t j = 0; j < args.columns; ++j) {
      const Vec x[1] = {load_strided(data + i * args.row_stride + j, args.row_stride, rows)};
      add<kWeighted>(lanes, x);
    }
    for (int lane = 0; lane < rows; ++lane) {
      const RowStats<float> row{lanes.max[lane], lanes.second[lane], lanes.others[lane],
                                lanes.weighted[lane]};
      args.out[i + lane] = uncertainty_of(row, args.kind);
    }
  }
}

template <typename scalar>
void forward(const UncertaintyArgs& args, int64_t begin, int64_t end) {
  const bool weighted = args.kind == Kind::entropy;
  if (args.columns <= kShort) {
    return weighted ? forward_short<true, scalar>(args, begin, end)
                    : forward_short<false, scalar>(args, begin, end);
  }
  const auto* data = static_cast<const scalar*>(args.logits);
  for (int64_t i = begin; i < end; ++i) {
    const scalar* row = data + i * args.row_stride;
    args.out[i] = uncertainty_of(
        weighted ? row_stats<true>(row, args.columns) : row_stats<false>(row, args.columns), args.kind);
  }
}

template <typename scalar>
void backward(const UncertaintyBackwardArgs& args, int64_t begin, int64_t end) {
  const auto* data = static_cast<const scalar*>(args.logits);
  const int64_t columns = args.columns;
  for (int64_t i = begin; i < end; ++i) {
    const scalar* row = data + i * args.row_stride;
    scalar* out = static_cast<scalar*>(args.grad) + i * columns;
    const RowStats<float> stats =
        args.kind == Kind::entropy ? row_stats<true>(row, columns) : row_stats<false>(row, columns);
    const RowGradient gradient = gradient_of(stats, args.kind, args.upstream[i * args.upstream_stride]);
    int64_t j = 0;
    for (; j + kLanes <= columns; j += kLanes) store(gradient_at(load(row + j), gradient), out + j);
    if (j < columns) {
      const Vec x = load_padded(row + j, columns - j);
      store_partial(gradient_at(x, gradient), out + j, columns - j);
    }
    if (args.kind == Kind::entropy) continue;
    const TopColumns top = top_columns(row, columns, stats);
    if (top.first < columns) store_partial(Vec{} + gradient.largest, out + top.first, 1);
    if (args.kind == Kind::margin && top.second < columns)
      store_partial(Vec{} + gradient.second, out + top.second, 1);
  }
}

}  // namespace

void uncertainty_cpu(const UncertaintyArgs& args, int threads) {
  parallel_for(args.rows, args.columns, threads, [&](int64_t begin, int64_t end) {
    with_scalar(args.dtype, [&](auto zero) { forward<decltype(zero)>(args, begin, end); });
  });
}

void uncertainty_backward_cpu(const UncertaintyBackwardArgs& args, int threads) {
  parallel_for(args.rows, args.columns, threads, [&](int64_t begin, int64_t end) {
    with_scalar(args.dtype, [&](auto zero) { backward<decltype(zero)>(args, begin, end); });
  });
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
