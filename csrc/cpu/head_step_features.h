// The two products that a training step of heads needs of an image's features, and that of its logits.
#pragma once

#include "vec.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

// Partial sums are over so many rows of an image, because rounding grows with the number of terms.
constexpr int64_t kRowBlock = 128;

// Calls add(n, load) for the columns n, n + kLanes, ... of a row. load(p) reads those from p on.
template <typename scalar, typename Add>
void for_each_column(int64_t columns, Add add) {
  int64_t n = 0;
  for (; n + kLanes <= columns; n += kLanes) add(n, [](const scalar* p) { return load(p); });
  if (n < columns) add(n, [=](const scalar* p) { return load_first(p, columns - n); });
}

// The features of an image: a row of channels for each pixel.
template <typename scalar>
struct Features {
  const scalar* data;
  int64_t pixels;
  int64_t channels;
  const scalar* next;  // those of the image that is to be in the cache next

  // Calls visit(rows, r) for the pixels from r on, with the number of rows as a constant.
  template <typename Visit>
  static void for_each_rows(int64_t begin, int64_t end, Visit visit) {
    constexpr int kAtOnce = 4;
    int64_t r = begin;
    for (; r + kAtOnce <= end; r += kAtOnce) visit(std::integral_constant<int, kAtOnce>{}, r);
    for (; r < end; ++r) visit(std::integral_constant<int, 1>{}, r);
  }

  // maps[h][p] = sum over channels of weights[h][c] F[p, c], and sums[c] += sum over pixels of F[p, c].
  // `block` has room for a row of channels. The rows of weights and sums are padded to whole vectors.
  template <int kHeads, bool kPool>
  void read(float* const* weights, float* const* maps, float* sums, float* block) const {
    for (int64_t first = 0; first < pixels; first += kRowBlock) {
      const int64_t end = pixels - first < kRowBlock ? pixels : first + kRowBlock;
      if (kPool) std::memset(block, 0, padded(channels) * sizeof(float));
      for_each_rows(first, end, [&](auto rows, int64_t r) {
        read_rows<rows.value, kHeads, kPool>(r, weights, maps, block);
      });
      for (int64_t n = 0; kPool && n < channels; n += kLanes)
        store(load(sums + n) + load(block + n), sums + n);
    }
  }

  // If this were inlined, GCC would keep the products of the loop in memory instead of registers.
  template <int kRows, int kHeads, bool kPool>
  __attribute__((noinline)) void read_rows(int64_t r, float* const* weights, float* const* maps,
                                           float* sums) const {
    const Features all = *this;  // the stores below cannot change a copy, so it stays in registers
    constexpr int kProducts = kRows * kHeads;
    Vec products[kProducts + 1] = {};
    for_each_column<scalar>(all.channels, [&](int64_t n, auto load_at) {
      Vec values[kRows], factors[kHeads + 1];
      for (int i = 0; i < kRows; ++i) values[i] = load_at(all.data + (r + i) * all.channels + n);
      all.fetch_ahead(r * all.channels + kRows * n, kRows * kLanes);
      for (int h = 0; h < kHeads; ++h) factors[h] = load(weights[h] + n);
#pragma GCC unroll 8
      for (int j = 0; j < kProducts; ++j) products[j] += factors[j / kRows] * values[j % kRows];
      if (!kPool) return;
      Vec total = values[0];
      for (int i = 1; i < kRows; ++i) total += values[i];
      store(load(sums + n) + total, sums + n);
    });
    for (int j = 0; j < kProducts; ++j) maps[j / kRows][r + j % kRows] = sum(products[j]);
  }

  // Rows are read a few at a time, side by side, which the machine does not foresee. So each step asks for
  // what is to be read kAhead bytes later, in the order of memory.
  __attribute__((always_inline)) void fetch_ahead(int64_t from, int64_t count) const {
    constexpr int64_t kAhead = 1 << 13;
    const int64_t ahead = kAhead / static_cast<int64_t>(sizeof(scalar)),
                  left = pixels * channels - from - ahead;
    fetch(left > 0 ? data + from + ahead : next - left, count);
  }

  // GCC takes a function that only fetches for one without effect, and leaves out its calls.
  __attribute__((always_inline)) static void fetch(const scalar* from, int64_t count) {
    constexpr int64_t kLine = 64 / sizeof(scalar);
    for (int64_t i = 0; i < count; i += kLine) __builtin_prefetch(from + i, 0, 2);
  }

  // sums[h][c] = sum over pixels of slopes[h][p] F[p, c], from the cache, while `next` comes from memory.
  template <int kHeads>
  void weigh(const float* const* slopes, float* const* sums) const {
    for (int h = 0; h < kHeads; ++h) std::memset(sums[h], 0, padded(channels) * sizeof(float));
    for_each_rows(0, pixels, [&](auto rows, int64_t r) { weigh_rows<rows.value, kHeads>(r, slopes, sums); });
  }

  template <int kRows, int kHeads>
  void weigh_rows(int64_t r, const float* const* slopes, float* const* sums) const {
    const Features all = *this;  // the stores below cannot change a copy
    float* out[kHeads];
    Vec factors[kRows * kHeads];
    for (int h = 0; h < kHeads; ++h) out[h] = sums[h];
    for (int j = 0; j < kRows * kHeads; ++j) factors[j] = Vec{} + slopes[j / kRows][r + j % kRows];
    for_each_column<scalar>(all.channels, [&](int64_t n, auto load_at) {
      Vec values[kRows], totals[kHeads];
      for (int i = 0; i < kRows; ++i) values[i] = load_at(all.data + (r + i) * all.channels + n);
      fetch(all.next + r * all.channels + kRows * n, kRows * kLanes);
      for (int h = 0; h < kHeads; ++h) totals[h] = load(out[h] + n);
#pragma GCC unroll 8
      for (int j = 0; j < kRows * kHeads; ++j) totals[j / kRows] += factors[j] * values[j % kRows];
      for (int h = 0; h < kHeads; ++h) store(totals[h], out[h] + n);
    });
  }
};

// out[i * kColumns + k] = sum over c of x[i][c] w[k][c]. The rows of x are padded with zeros to whole
// vectors.
template <int kRows, int kColumns>
void products_of(const float* const (&x)[kRows], const float* const (&w)[kColumns], int64_t length,
                 float (&out)[kRows * kColumns]) {
  Vec sums[kRows * kColumns] = {};
  for_each_column<float>(length, [&](int64_t n, auto load_at) {
    Vec values[kRows], weights[kColumns];
    for (int i = 0; i < kRows; ++i) values[i] = load(x[i] + n);
    for (int k = 0; k < kColumns; ++k) weights[k] = load_at(w[k] + n);
#pragma GCC unroll 16
    for (int j = 0; j < kRows * kColumns; ++j) sums[j] += values[j / kColumns] * weights[j % kColumns];
  });
  for (int j = 0; j < kRows * kColumns; ++j) out[j] = sum(sums[j]);
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
