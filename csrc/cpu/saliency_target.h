// Human maps of any type, averaged over areas to the resolution of the loss.
#pragma once

#include "vec.h"
// vec.h comes first: the templates below find its overloads by ordinary lookup.
#include "sal_fast/saliency_loss.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

// The extremes of a map. It is not finite if it holds NaN or an infinity.
struct Extremes {
  float low = kInfinity;
  float high = -kInfinity;
  bool finite = true;

  // `row` has room for whole vectors.
  void add_row(const float* row, int64_t length) {
    const Vec first = Vec{} + row[0];
    Vec lowest = first, highest = first, other{};
    for (int64_t j = 0; j < length; j += kLanes) {
      const Vec x = first_lanes(load(row + j), length - j, first);
      lowest = smaller(x, lowest);
      highest = larger(x, highest);
      other += x - x;
    }
    low = smaller(-max(-lowest), low);
    high = larger(max(highest), high);
    finite = finite && sum(other) == 0.0f;
  }
  bool flat() const { return is_flat(low, high); }
};

// Rows of values, read as floats. lanes(j, n) has the values from j on, of which there are n; what is in the
// other lanes is never looked at.
template <typename scalar>
struct ValueRow {
  const scalar* at;
  Vec lanes(int64_t j, int64_t n) const { return load_first(at + j, n); }
};

template <typename scalar>
struct StridedRow {
  const scalar* at;
  int64_t stride;
  Vec lanes(int64_t j, int64_t n) const { return load_strided(at + j * stride, stride, n); }
};

struct BitRow {
  const uint32_t* at;
  Vec lanes(int64_t j, int64_t) const {  // j: a multiple of kLanes
    Bits shift;
    for (int i = 0; i < kLanes; ++i) shift[i] = static_cast<uint32_t>(j % 32 + i);
    return __builtin_convertvector((at[j / 32] >> shift) & 1, Vec);
  }
};

// out[j] becomes the sum over `count` rows that are `stride` elements apart; it has room for whole vectors.
template <typename Row>
void sum_rows(Row first, int64_t stride, int64_t count, int64_t length, float* out) {
  constexpr int kBlocks = 4;  // sums that do not wait for each other
  int64_t j = 0;
  const auto blocks = [&](auto wide, int64_t n) {
    Vec total[wide.value] = {};
    Row row = first;
    for (int64_t r = 0; r < count; ++r, row.at += stride)
      for (int b = 0; b < wide.value; ++b) total[b] += row.lanes(j + b * kLanes, n);
    for (int b = 0; b < wide.value; ++b, j += kLanes) store(total[b], out + j);
  };
  while (j + kBlocks * kLanes <= length) blocks(std::integral_constant<int, kBlocks>{}, kLanes);
  while (j < length) blocks(std::integral_constant<int, 1>{}, length - j);
}

// Calls run with `count` as a constant, 1..kMost.
template <int kMost, typename Run>
void with_constant(int64_t count, Run run) {
  if constexpr (kMost > 1)
    if (count < kMost) return with_constant<kMost - 1>(count, run);
  run(std::integral_constant<int, kMost>{});
}

// Bytes are summed in 16-bit words, twice as many at a time; up to 257 rows of them cannot overflow. As much
// of a row is taken at once as there are registers for, so that memory is read in its order.
inline void sum_rows(ValueRow<uint8_t> first, int64_t stride, int64_t count, int64_t length, float* out) {
  constexpr int kWords = 2 * kLanes;
  int64_t j = 0;
  while (count <= 257 && j + kWords <= length) {
    with_constant<8>((length - j) / kWords, [&](auto blocks) {
      Words total[blocks.value] = {};
      const uint8_t* at = first.at + j;
      for (int64_t r = 0; r < count; ++r, at += stride)
        for (int b = 0; b < blocks.value; ++b) total[b] += load_words(at + b * kWords);
      uint16_t words[blocks.value * kWords];
      std::memcpy(words, total, sizeof total);
      for (int i = 0; i < blocks.value * kWords; ++i) out[j + i] = words[i];
      j += blocks.value * kWords;
    });
  }
  first.at += j;
  sum_rows<ValueRow<uint8_t>>(first, stride, count, length - j, out + j);
}

// Adds up the first `length` values of rows [begin, end) of the target.
inline void sum_target_rows(const SaliencyLossArgs& args, int64_t image, int64_t begin, int64_t end,
                            int64_t length, float* out) {
  const int64_t stride = args.target_row_stride, columns = args.target_column_stride;
  const int64_t offset = image * args.target_image_stride + begin * stride, count = end - begin;
  const auto run = [&](auto zero) {
    using scalar = decltype(zero);
    const scalar* const at = static_cast<const scalar*>(args.target) + offset;
    if (columns == 1) return sum_rows(ValueRow<scalar>{at}, stride, count, length, out);
    sum_rows(StridedRow<scalar>{at, columns}, stride, count, length, out);
  };
  if (args.target_type == TargetType::bytes) return run(uint8_t{});
  if (args.target_type != TargetType::bits) return with_scalar(static_cast<DType>(args.target_type), run);
  sum_rows(BitRow{static_cast<const uint32_t*>(args.target) + offset}, stride, count, length, out);
}

// Row i of the target at the resolution of the loss; `sums` has room for a row of the target.
inline void average_target_row(const SaliencyLossArgs& args, int64_t image, int64_t i, float* sums,
                               float* out) {
  const auto height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const auto target_width = static_cast<int>(args.target_width);
  const Bin rows = bin_of(static_cast<int>(i), static_cast<int>(args.target_height), height);
  const int count = rows.end - rows.begin;
  const bool same = count == 1 && target_width == width;
  sum_target_rows(args, image, rows.begin, rows.end, target_width, same ? out : sums);
  for (int j = 0; !same && j < width; ++j) {
    const Bin columns = bin_of(j, target_width, width);
    float sum = 0;
    for (int k = columns.begin; k < columns.end; ++k) sum += sums[k];
    out[j] = sum / static_cast<float>(count * (columns.end - columns.begin));
  }
}

// Whether the target has the resolution of the loss, and no gaps within an image.
inline bool has_own_resolution(const SaliencyLossArgs& args) {
  return args.target_height == args.height && args.target_width == args.width &&
         args.target_type != TargetType::bits && args.target_column_stride == 1 &&
         args.target_row_stride == args.target_width;
}

// The target at the resolution of the loss. A dense one that has it already is one long row.
inline void average_target(const SaliencyLossArgs& args, int64_t image, float* sums, float* out) {
  if (has_own_resolution(args)) return sum_target_rows(args, image, 0, 1, args.height * args.width, out);
  for (int64_t i = 0; i < args.height; ++i) average_target_row(args, image, i, sums, out + i * args.width);
}

inline void load_values(const void* data, DType dtype, int64_t offset, int64_t count, float* out) {
  with_scalar(dtype, [&](auto zero) {
    using scalar = decltype(zero);
    sum_rows(ValueRow<scalar>{static_cast<const scalar*>(data) + offset}, 0, 1, count, out);
  });
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
