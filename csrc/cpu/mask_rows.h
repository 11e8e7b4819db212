// The rows of binary masks as 32-bit words, however the masks are stored.
#pragma once

#include "sal_fast/launch/mask.h"
#include "sal_fast/topn.h"
#include "vec.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

constexpr int64_t kWord = 32;

inline int64_t words_of(int64_t pixels) {
  return (pixels + kWord - 1) / kWord;
}

// The bits of the first n pixels, 1..32.
inline uint32_t first_pixels(int64_t n) {
  return n >= kWord ? ~0u : (1u << n) - 1;
}

inline int64_t count_bits(uint32_t word) {
  return __builtin_popcount(word);
}

// 32 bytes, each 0 or not, as bits.
inline uint32_t pack_word(const uint8_t* p) {
#if defined(__AVX2__)
  const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return ~static_cast<uint32_t>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, _mm256_setzero_si256())));
#else
  uint32_t word = 0;
  for (int i = 0; i < kWord; ++i) word |= static_cast<uint32_t>(p[i] != 0) << i;
  return word;
#endif
}

// 32 bits as bytes, 0 or 1.
inline void unpack_word(uint32_t word, uint8_t* out) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_maskz_set1_epi8(word, 1));
#elif defined(__AVX2__)
  const __m256i from = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bits = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(word)), from);
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bits), bits);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), _mm256_and_si256(set, _mm256_set1_epi8(1)));
#else
  for (int i = 0; i < kWord; ++i) out[i] = word >> i & 1u;
#endif
}

// The rows of a mask, read by nearest at a size of height x width.
class MaskRows {
 public:
  MaskRows(const Mask& mask, int64_t height, int64_t width) : mask_(mask), height_(height), width_(width) {}

  // Row i of an image: words_of(width) words, whose bits past the width are 0. They are in the mask or in
  // `memory`.
  const uint32_t* row(int64_t image, int64_t i, uint32_t* memory) const {
    const int64_t offset = image * mask_.image_stride + nearest(i, mask_.height, height_) * mask_.row_stride;
    const int64_t words = words_of(width_);
    if (words == 0) return memory;
    if (mask_.type == MaskType::bits) {
      const uint32_t* stored = static_cast<const uint32_t*>(mask_.data) + offset;
      if (mask_.width != width_)
        return gather(memory, [stored](int64_t x) { return stored[x / kWord] >> x % kWord & 1u; });
      if (width_ % kWord == 0) return stored;
      std::memcpy(memory, stored, words * sizeof(uint32_t));
      memory[words - 1] &= first_pixels(width_ % kWord);
      return memory;
    }
    const uint8_t* bytes = static_cast<const uint8_t*>(mask_.data) + offset;
    if (mask_.width != width_ || mask_.column_stride != 1)
      return gather(memory, [this, bytes](int64_t x) {
        return static_cast<uint32_t>(bytes[x * mask_.column_stride] != 0);
      });
    int64_t w = 0;
#if defined(__AVX512BW__)
    for (; w + 2 <= width_ / kWord; w += 2) {
      const __m512i two_words = _mm512_loadu_si512(bytes + w * kWord);
      const uint64_t set = _mm512_test_epi8_mask(two_words, two_words);
      std::memcpy(memory + w, &set, sizeof set);
    }
#endif
    for (; w < width_ / kWord; ++w) memory[w] = pack_word(bytes + w * kWord);
    if (const int64_t left = width_ % kWord; left > 0) {
      uint8_t last[kWord] = {};
      std::memcpy(last, bytes + width_ - left, left);
      memory[words - 1] = pack_word(last);
    }
    return memory;
  }

  // Writes all rows of an image to `words`, one behind the other. Returns the number of set bits.
  int64_t copy(int64_t image, uint32_t* words) const {
    int64_t set = 0;
    for (int64_t i = 0; i < height_; ++i, words += words_of(width_)) {
      const uint32_t* const stored = row(image, i, words);
      if (stored != words) std::memcpy(words, stored, words_of(width_) * sizeof(uint32_t));
      for (int64_t w = 0; w < words_of(width_); ++w) set += count_bits(words[w]);
    }
    return set;
  }

 private:
  // Gathers the pixels nearest(x). They advance by a quotient, and sometimes by one more, which takes no
  // division for a pixel.
  template <typename Bit>
  const uint32_t* gather(uint32_t* memory, Bit bit) const {
    const int64_t step = mask_.width / width_, rest = mask_.width % width_;
    int64_t at = 0, excess = 0;
    for (int64_t w = 0; w < words_of(width_); ++w) {
      uint32_t word = 0;
      for (int64_t j = 0; j < kWord && w * kWord + j < width_; ++j) {
        word |= bit(at) << j;
        at += step;
        excess += rest;
        const bool more = excess >= width_;
        at += more;
        excess -= more ? width_ : 0;
      }
      memory[w] = word;
    }
    return memory;
  }

  const Mask mask_;
  int64_t height_;
  int64_t width_;
};

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
