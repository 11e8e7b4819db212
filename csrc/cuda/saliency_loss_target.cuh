// The human map at the resolution of the loss.
#pragma once

#include <type_traits>

#include "block.cuh"
#include "sal_fast/saliency_loss.h"

namespace sal_fast {
namespace {

// Calls visit(row, column) for the places among rows x columns that fall to `lane` of kLanes.
template <int kLanes, typename Visit>
__device__ void share_out(int rows, int columns, int lane, Visit visit) {
  if constexpr (kLanes == 1) {
    for (int row = 0; row < rows; ++row)
      for (int column = 0; column < columns; ++column) visit(row, column);
  } else {
    for (int i = lane; i < rows * columns; i += kLanes) visit(i / columns, i % columns);
  }
}

// The part of a word that lies in the bin. The word has `kUnits` units of `kBits` bits, and its first is unit
// `first` of the row.
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

// The sum of the values of a bin. Those of bytes and bits are integers.
template <int kLanes, typename scalar>
__device__ auto sum_of(const SaliencyLossArgs& args, const scalar* image, Bin rows, Bin columns, int lane) {
  const scalar* corner =
      image + rows.begin * args.target_row_stride + columns.begin * args.target_column_stride;
  std::conditional_t<sizeof(scalar) == 1, unsigned, float> sum = 0;
  share_out<kLanes>(rows.end - rows.begin, columns.end - columns.begin, lane, [&](int row, int column) {
    const scalar value = corner[row * args.target_row_stride + column * args.target_column_stride];
    sum += static_cast<decltype(sum)>(value);
  });
  return sum;
}

template <int kLanes>
__device__ unsigned sum_of(const SaliencyLossArgs& args, const unsigned char* image, Bin rows, Bin columns,
                           int lane) {
  const bool packed = kLanes > 1 && args.target_column_stride == 1 && args.target_row_stride % 16 == 0 &&
                      args.target_width % 16 == 0 && reinterpret_cast<uintptr_t>(image) % 16 == 0;
  if (!packed) return sum_of<kLanes, unsigned char>(args, image, rows, columns, lane);
  const unsigned char* top = image + rows.begin * args.target_row_stride;
  const int first = columns.begin / 16, last = (columns.end + 15) / 16;
  unsigned sum = 0;
  share_out<kLanes>(rows.end - rows.begin, last - first, lane, [&](int row, int pack) {
    const int column = (first + pack) * 16;
    const uint4 words = *reinterpret_cast<const uint4*>(top + row * args.target_row_stride + column);
    sum += sum_of_bytes(part_in<4>(words.x, column, columns));
    sum += sum_of_bytes(part_in<4>(words.y, column + 4, columns));
    sum += sum_of_bytes(part_in<4>(words.z, column + 8, columns));
    sum += sum_of_bytes(part_in<4>(words.w, column + 12, columns));
  });
  return sum;
}

template <int kLanes>
__device__ unsigned sum_of(const SaliencyLossArgs& args, const unsigned* image, Bin rows, Bin columns,
                           int lane) {
  const int first = columns.begin / 32, last = (columns.end + 31) / 32;
  unsigned sum = 0;
  share_out<kLanes>(rows.end - rows.begin, last - first, lane, [&](int row, int word) {
    const unsigned bits = image[(rows.begin + row) * args.target_row_stride + first + word];
    sum += __popc(part_in<32>(bits, (first + word) * 32, columns));
  });
  return sum;
}

// Calls run with a pointer to the first value of an image of the target, of its own type; unsigned for bits.
template <typename Run>
__device__ float with_target(const SaliencyLossArgs& args, int64_t image, Run run) {
  const auto of_type = [&](auto zero) {
    return run(static_cast<const decltype(zero)*>(args.target) + image * args.target_image_stride);
  };
  switch (args.target_type) {
    case TargetType::bytes:
      return of_type(static_cast<unsigned char>(0));
    case TargetType::bits:
      return of_type(0u);
    case TargetType::float32:
      return of_type(0.0f);
    case TargetType::float16:
      return of_type(__half{});
    default:
      return of_type(__nv_bfloat16{});
  }
}

// The mean of the target over a bin, by one thread or by a warp. Sums of bytes and bits are exact, so that
// the bins of a constant target are equal, whatever their sizes.
template <int kLanes>
__device__ float pooled(const SaliencyLossArgs& args, int64_t image, Bin rows, Bin columns, int lane = 0) {
  const auto count = static_cast<float>((rows.end - rows.begin) * (columns.end - columns.begin));
  return with_target(args, image, [&](const auto* data) {
    return merge_lanes<kLanes>(sum_of<kLanes>(args, data, rows, columns, lane), Sum{}) / count;
  });
}

// Whether the target has the resolution of the loss, so that there are no bins to average.
__device__ bool same_size(const SaliencyLossArgs& args) {
  return args.target_height == args.height && args.target_width == args.width;
}

__device__ Bin target_bin(bool same, int pixel, int64_t target_length, int length) {
  return same ? Bin{pixel, pixel + 1} : bin_of(pixel, static_cast<int>(target_length), length);
}

// One value of the target.
__device__ float target_at(const SaliencyLossArgs& args, int64_t image, int row, int column) {
  const int64_t line = row * args.target_row_stride;
  return with_target(args, image, [&](const auto* data) {
    if constexpr (std::is_same_v<decltype(data), const unsigned*>) {
      return static_cast<float>(data[line + column / 32] >> column % 32 & 1);
    } else {
      return to_float(data[line + column * args.target_column_stride]);
    }
  });
}

__device__ float human_at(const SaliencyLossArgs& args, bool same, int64_t image, Bin rows, Bin columns) {
  return same ? target_at(args, image, rows.begin, columns.begin) : pooled<1>(args, image, rows, columns);
}

// Whether the rows of a target of the loss's resolution are whole 32-bit words.
__device__ bool in_words(const SaliencyLossArgs& args) {
  if (args.target_type == TargetType::bits) return true;
  const int64_t sides = args.target_width | args.target_row_stride | args.target_image_stride;
  return args.target_type == TargetType::bytes && args.target_column_stride == 1 && sides % 4 == 0 &&
         reinterpret_cast<uintptr_t>(args.target) % 4 == 0;
}

// Whether this thread of `threads` finds a unit in its share of rows x columns that differs from `pattern`, a
// word that repeats one unit. A row has at most 16 words.
template <int kUnits>
__device__ bool differs_from(const SaliencyLossArgs& args, int64_t image, Bin rows, Bin columns,
                             unsigned pattern, int threads) {
  constexpr int kPerWord = kUnits == 4 ? 4 : 1;  // the strides are of bytes, or of words
  const int64_t stride = args.target_row_stride / kPerWord;
  const int word = columns.begin / kUnits + static_cast<int>(threadIdx.x) % 16;
  const unsigned mask = part_in<kUnits>(~0u, word * kUnits, columns);
  if (mask == 0) return false;
  const int first = rows.begin + static_cast<int>(threadIdx.x) / 16;
  const unsigned* at = static_cast<const unsigned*>(args.target) +
                       image * args.target_image_stride / kPerWord + first * stride + word;
  unsigned difference = 0;
#pragma unroll 4
  for (int row = first; row < rows.end; row += threads / 16, at += threads / 16 * stride)
    difference |= (*at ^ pattern) & mask;
  return difference != 0;
}

__device__ bool differs_from(const SaliencyLossArgs& args, int64_t image, Bin rows, Bin columns, float value,
                             int threads) {
  if (args.target_type == TargetType::bits)
    return differs_from<32>(args, image, rows, columns, value != 0 ? ~0u : 0u, threads);
  return differs_from<4>(args, image, rows, columns, static_cast<unsigned>(value) * 0x01010101u, threads);
}

// Adds a thread's share to the lowest and the highest value at the resolution of the loss.
template <int kThreads>
__device__ void add_target_extremes(const SaliencyLossArgs& args, int64_t image, float& low, float& high) {
  const auto height = static_cast<int>(args.height), width = static_cast<int>(args.width);
  const bool same = same_size(args);
  const auto add = [&](float least, float most) {
    low = Min{}(low, least);
    high = Max{}(high, most);
  };
  const auto* bytes = static_cast<const unsigned char*>(args.target) + image * args.target_image_stride;
  if (same && in_words(args) && args.target_type == TargetType::bytes && args.target_row_stride == width &&
      height * width % 16 == 0 && reinterpret_cast<uintptr_t>(bytes) % 16 == 0) {
    unsigned least = ~0u, most = 0;
#pragma unroll 8
    for (int i = threadIdx.x; i < height * width / 16; i += kThreads) {
      const uint4 words = reinterpret_cast<const uint4*>(bytes)[i];
      least = __vminu4(__vminu4(least, __vminu4(words.x, words.y)), __vminu4(words.z, words.w));
      most = __vmaxu4(__vmaxu4(most, __vmaxu4(words.x, words.y)), __vmaxu4(words.z, words.w));
    }
    for (int i = 0; i < 32; i += 8)
      add(static_cast<float>(least >> i & 0xff), static_cast<float>(most >> i & 0xff));
    return;
  }
  if (same && args.target_type == TargetType::bits) {
    const int words = (width + 31) / 32;
    const auto* first = static_cast<const unsigned*>(args.target) + image * args.target_image_stride;
    for (int i = threadIdx.x; i < height * words; i += kThreads) {
      const int row = i / words, word = i % words;
      const unsigned bits = first[row * args.target_row_stride + word];
      const Bin all{0, width};
      add(part_in<32>(~bits, word * 32, all) ? 0.0f : 1.0f, part_in<32>(bits, word * 32, all) ? 1.0f : 0.0f);
    }
    return;
  }
  for (int row = threadIdx.x / kWarp; row < height; row += kThreads / kWarp) {
    const Bin rows = target_bin(same, row, args.target_height, height);
    for (int column = threadIdx.x % kWarp; column < width; column += kWarp) {
      const Bin columns = target_bin(same, column, args.target_width, width);
      const float human = human_at(args, same, image, rows, columns);
      add(human, human);
    }
  }
}

}  // namespace
}  // namespace sal_fast
