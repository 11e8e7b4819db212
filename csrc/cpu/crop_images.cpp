// Compiled once per instruction set, with SAL_FAST_ISA naming it: see CMakeLists.txt.
//
// Bytes moved: the stored rows that a crop covers, once, and its result. A stored row is split into its
// channels, resampled along the row and coloured; an output row is a blend of two of those, which are kept
// while the rows below still need them.
#include <algorithm>

#include "parallel.h"
#include "scratch.h"
// vec.h comes first, in scratch.h: the templates below find its overloads by ordinary lookup.
#include "sal_fast/crop.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {
namespace {

constexpr int kChannels = 3;

// A result that would not stay in the caches is written past them, so that its lines need not be read first.
constexpr int64_t kPastCaches = 8 << 20;

struct Pixels {
  Vec at[kChannels];
};

// kLanes pixels of three bytes.
inline Pixels load_pixels(const uint8_t* p) {
  Pixels pixels;
#if defined(__AVX512BW__)
  const __m512i bytes = _mm512_maskz_loadu_epi32(0x0fff, p);
  const __m512i four_a_lane = _mm512_setr_epi32(0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
  const __m512i spread = _mm512_maskz_permutexvar_epi32(0xffff, four_a_lane, bytes);
  const __m512i first = _mm512_maskz_broadcast_i32x4(
      0xffff, _mm_setr_epi8(0, -1, -1, -1, 3, -1, -1, -1, 6, -1, -1, -1, 9, -1, -1, -1));  // -1 gives 0
  for (int c = 0; c < kChannels; ++c) {
    const __m512i from = _mm512_add_epi32(first, _mm512_set1_epi32(c));
    const __m512i values = _mm512_maskz_shuffle_epi8(~uint64_t{0}, spread, from);
    pixels.at[c] = _mm512_maskz_cvtepi32_ps(0xffff, values);
  }
#elif defined(__AVX2__)
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 8));
  const __m256i spread = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
  const __m256i first = _mm256_setr_epi8(0, -1, -1, -1, 3, -1, -1, -1, 6, -1, -1, -1, 9, -1, -1, -1,  //
                                         4, -1, -1, -1, 7, -1, -1, -1, 10, -1, -1, -1, 13, -1, -1, -1);
  for (int c = 0; c < kChannels; ++c) {
    const __m256i values = _mm256_shuffle_epi8(spread, _mm256_add_epi32(first, _mm256_set1_epi32(c)));
    pixels.at[c] = _mm256_cvtepi32_ps(values);
  }
#else
  for (int i = 0; i < kLanes; ++i)
    for (int c = 0; c < kChannels; ++c) pixels.at[c][i] = p[kChannels * i + c];
#endif
  return pixels;
}

// The first n; the others are 0.
inline Pixels load_first_pixels(const uint8_t* p, int64_t n) {
  if (n >= kLanes) return load_pixels(p);
  uint8_t bytes[kChannels * kLanes] = {};
  std::memcpy(bytes, p, kChannels * n);
  return load_pixels(bytes);
}

// Values index[i] < 2 kLanes of those from p on.
inline Vec pick(const float* p, Bits index) {
#if defined(__AVX512F__)
  return _mm512_permutex2var_ps(load(p), (__m512i)index, load(p + kLanes));
#elif defined(__AVX2__)
  const __m256i lanes = (__m256i)index;  // the lowest three bits count
  const Vec low = _mm256_permutevar8x32_ps(load(p), lanes);
  const Vec high = _mm256_permutevar8x32_ps(load(p + kLanes), lanes);
  return index < Bits{} + kLanes ? low : high;
#else
  Vec x;
  for (int i = 0; i < kLanes; ++i) x[i] = p[index[i]];
  return x;
#endif
}

// The same from anywhere.
inline Vec gather(const float* p, Bits index) {
#if defined(__AVX512F__)
  return _mm512_mask_i32gather_ps(Vec{}, 0xffff, (__m512i)index, p, sizeof(float));
#else
  Vec x;
  for (int i = 0; i < kLanes; ++i) x[i] = p[index[i]];
  return x;
#endif
}

struct Color {
  Vec at[kChannels][4];

  explicit Color(const float* values) {
    for (int i = 0; i < kChannels * 4; ++i) at[i / 4][i % 4] = Vec{} + values[i];
  }
  Pixels of(const Pixels& p) const {
    Pixels result;
    for (int c = 0; c < kChannels; ++c) result.at[c] = colored(p.at[0], p.at[1], p.at[2], at[c]);
    return result;
  }
};

// Stores a vector, past the caches if that is possible and wanted.
template <bool kPast>
inline void put(Vec x, float* p) {
#if defined(__AVX512F__)
  if constexpr (kPast) return _mm512_stream_ps(p, x);
#elif defined(__AVX2__)
  if constexpr (kPast) return _mm256_stream_ps(p, x);
#endif
  store(x, p);
}
template <bool kPast, typename half>
inline void put(Vec x, half* p) {
  alignas(64) half values[kLanes];
  store(x, values);
#if defined(__AVX512F__)
  if constexpr (kPast)
    return _mm256_stream_si256(reinterpret_cast<__m256i*>(p),
                               _mm256_load_si256(reinterpret_cast<const __m256i*>(values)));
#elif defined(__AVX2__)
  if constexpr (kPast)
    return _mm_stream_si128(reinterpret_cast<__m128i*>(p),
                            _mm_load_si128(reinterpret_cast<const __m128i*>(values)));
#endif
  store(x, p);
}

// Colours n pixels that are neighbours, to three planes.
template <bool kPast, typename scalar>
void copy(const uint8_t* pixels, int64_t n, const Color& color, scalar* out, int64_t plane) {
  int64_t x = 0;
  for (; x + kLanes <= n; x += kLanes) {
    const Pixels result = color.of(load_pixels(pixels + kChannels * x));
    for (int c = 0; c < kChannels; ++c) put<kPast>(result.at[c], out + c * plane + x);
  }
  if (x == n) return;
  const Pixels result = color.of(load_first_pixels(pixels + kChannels * x, n - x));
  for (int c = 0; c < kChannels; ++c) store_partial(result.at[c], out + c * plane + x, n - x);
}

// The crop of one image.
class Crop {
 public:
  Crop(const CropImagesArgs& args, float* memory) : args_(args), arena_(memory) {
    // Behind the last pixel of a stored row a weight is 0.
    if (memory) std::memset(stored_.first, 0, kChannels * stored_.stride * sizeof(float));
  }

  int64_t used() const { return arena_.used(); }

  template <bool kPast, typename scalar>
  void run(const uint8_t* image, const Cropped& from, const Color& color, scalar* out) {
    place_columns(from.across);
    held_[0] = held_[1] = -1;
    const int64_t plane = args_.out_height * args_.out_width;
    for (int y = 0; y < args_.out_height; ++y) {
      const Between at = between(from.down, y, height_);
      const Rows& top = line_of(image, at.cell, at.next, color);
      const Rows& bottom = line_of(image, at.next, at.cell, color);
      for (int c = 0; c < kChannels; ++c)
        blend_lines<kPast>(top[c], bottom[c], at.weight, out + c * plane + y * args_.out_width);
    }
  }

 private:
  // Finds the weight of each output pixel of a row, and the stored pixel before it, counted from the first of
  // its group.
  void place_columns(const Places& across) {
    const int count = static_cast<int>(args_.out_width);
    first_ = width_;
    int last = 0;
    for (int x = 0; x < count; x += kLanes) {
      int cells[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        const Between at = between(across, std::min(x + i, count - 1), width_);
        cells[i] = at.cell;
        weight_[x + i] = at.weight;
      }
      const auto [low, high] = std::minmax(cells[0], cells[kLanes - 1]);  // they are in order
      for (int i = 0; i < kLanes; ++i) index_[x + i] = static_cast<uint32_t>(cells[i] - low);
      base_[x / kLanes] = low;
      wide_[x / kLanes] = high + 1 - low >= 2 * kLanes;
      first_ = std::min(first_, low);
      last = std::max(last, high);
    }
    end_ = std::min(last + 2, width_);
  }

  // Stored row `row`, resampled along itself and coloured. The line of row `other` is kept.
  const Rows& line_of(const uint8_t* image, int row, int other, const Color& color) {
    for (int k = 0; k < 2; ++k)
      if (held_[k] == row) return lines_[k];
    const int k = held_[0] == other ? 1 : 0;
    held_[k] = row;
    const Rows stored = stored_, line = lines_[k];  // copies: members would be read again after every store
    const uint8_t* const pixels = image + row * args_.row_stride;
    for (int x = first_; x < end_; x += kLanes) {
      const Pixels values = load_first_pixels(pixels + kChannels * x, width_ - x);
      for (int c = 0; c < kChannels; ++c) store(values.at[c], stored[c] + x);
    }
    for (int x = 0; x < args_.out_width; x += kLanes) {
      Bits index;
      std::memcpy(&index, index_ + x, sizeof index);
      const Bits next = index + 1;
      const Vec weight = load(weight_ + x);
      const int64_t base = base_[x / kLanes];
      const bool wide = wide_[x / kLanes];
      Pixels values;
      for (int c = 0; c < kChannels; ++c) {
        const float* const p = stored[c] + base;
        const Vec a = wide ? gather(p, index) : pick(p, index), b = wide ? gather(p, next) : pick(p, next);
        values.at[c] = fused(weight, b - a, a);
      }
      values = color.of(values);
      for (int c = 0; c < kChannels; ++c) store(values.at[c], line[c] + x);
    }
    return lines_[k];
  }

  template <bool kPast, typename scalar>
  void blend_lines(const float* top, const float* bottom, float weight, scalar* out) const {
    const Vec share = Vec{} + weight;
    const auto at = [&](int64_t x) {
      const Vec a = load(top + x);
      return top == bottom ? a : fused(share, load(bottom + x) - a, a);
    };
    int64_t x = 0;
    for (; x + kLanes <= args_.out_width; x += kLanes) put<kPast>(at(x), out + x);
    if (x < args_.out_width) store_partial(at(x), out + x, args_.out_width - x);
  }

  Rows line() { return arena_.rows(kChannels, args_.out_width); }

  const CropImagesArgs& args_;
  Arena arena_;
  const int height_ = static_cast<int>(args_.height), width_ = static_cast<int>(args_.width);
  const Rows stored_ = arena_.rows(kChannels, width_);  // a stored row by channels
  const Rows lines_[2] = {line(), line()};              // two of them resampled
  float* const weight_ = arena_.row(args_.out_width);
  uint32_t* const index_ = arena_.words(args_.out_width);
  uint32_t* const base_ = arena_.words(args_.out_width);
  uint32_t* const wide_ = arena_.words(args_.out_width);  // whether a group reaches beyond 2 kLanes pixels
  int held_[2] = {-1, -1};
  int first_ = 0, end_ = 0;  // the pixels of a stored row that are needed
};

template <typename scalar>
void fill_with_nan(scalar* out, int64_t count) {
  const Vec nan = Vec{} + (kInfinity - kInfinity);
  for (int64_t n = 0; n < count; n += kLanes) store_partial(nan, out + n, count - n);
}

template <bool kPast, typename scalar>
void forward(const CropImagesArgs& args, int64_t begin, int64_t end, float* memory) {
  const int64_t plane = args.out_height * args.out_width;
  const bool whole = !args.box && args.out_height == args.height && args.out_width == args.width;
  const bool one_piece = args.row_stride == kChannels * args.width;
  Crop crop(args, memory);
  for (int64_t b = begin; b < end; ++b) {
    scalar* const out = static_cast<scalar*>(args.out) + b * kChannels * plane;
    const Cropped from = cropped(args, args.height, args.width, b);
    if (!from.valid) {
      fill_with_nan(out, kChannels * plane);
      continue;
    }
    const uint8_t* const image = args.images + from.row * args.image_stride;
    const Color color(args.color + b * args.color_stride);
    if (!whole) {
      crop.run<kPast>(image, from, color, out);
    } else if (one_piece) {
      copy<kPast>(image, plane, color, out, plane);
    } else {
      for (int64_t y = 0; y < args.height; ++y)
        copy<kPast>(image + y * args.row_stride, args.width, color, out + y * args.width, plane);
    }
  }
#if defined(__AVX2__)
  if constexpr (kPast) _mm_sfence();
#endif
}

}  // namespace

void crop_images_cpu(const CropImagesArgs& args, int threads) {
  const int64_t area = args.out_height * args.out_width, memory = Crop(args, nullptr).used();
  parallel_for(args.batch, kChannels * area, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(memory);
    with_scalar(args.dtype, [&](auto zero) {
      using scalar = decltype(zero);
      constexpr int64_t kLine = 64, kSize = sizeof(scalar);
      const bool past = args.batch * kChannels * area * kSize >= kPastCaches &&
                        args.out_width * kSize % kLine == 0 &&
                        reinterpret_cast<uintptr_t>(args.out) % kLine == 0;
      const auto run = past ? forward<true, scalar> : forward<false, scalar>;
      run(args, begin, end, scratch);
    });
  });
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
