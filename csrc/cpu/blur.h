// Rows of floats under a window, which ssim and saliency_loss share.
//
// A row has room for kSlack more floats than it is long, so that loops run over whole vectors. What they
// write there is never read as a value. Memory comes from outside: the linker could merge the copies of a
// standard class that each instruction set instantiates, into one that not every machine can run.
#pragma once

#include "sal_fast/launch/ssim.h"
#include "vec.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

constexpr int64_t kSlack = 2 * kLanes;

struct Rows {
  float* first;
  int64_t stride;
  float* operator[](int64_t row) const { return first + row * stride; }
};

// Hands out rows from one piece of memory. On a null pointer it only counts.
class Arena {
 public:
  explicit Arena(float* memory) : memory_(memory) {}
  Rows rows(int64_t count, int64_t length) {
    const int64_t stride = (length + kSlack + kLanes - 1) / kLanes * kLanes;
    const Rows rows{memory_ ? memory_ + used_ : nullptr, stride};
    used_ += count * stride;
    return rows;
  }
  void clear() const { std::memset(memory_, 0, used_ * sizeof(float)); }
  int64_t used() const { return used_; }

 private:
  float* memory_;
  int64_t used_ = 0;
};

// The lanes before n of x, 0 in the others.
inline Vec first_lanes(Vec x, int64_t n) {
  if (n >= kLanes) return x;
  return lane_numbers() < Bits{} + static_cast<uint32_t>(n) ? x : Vec{};
}

// out[q][i] = sum_k taps[k] in[q][i + k]
template <int count>
inline void blur_along(const float* taps, int64_t window, const float* const (&in)[count],
                       float* const (&out)[count], int64_t length) {
  for (int64_t i = 0; i < length; i += kLanes) {
    Vec total[count] = {};
    for (int64_t k = 0; k < window; ++k)
      for (int q = 0; q < count; ++q) total[q] += taps[k] * load(in[q] + i + k);
    for (int q = 0; q < count; ++q) store(total[q], out[q] + i);
  }
}

// The same for one vector at column i, across the rows of rings: that of row r is ring[r % window].
template <int count>
inline void blur_across(const float* taps, int64_t window, const Rows (&ring)[count], int64_t oldest,
                        int64_t i, Vec (&total)[count]) {
  for (int q = 0; q < count; ++q) total[q] = Vec{};
  for (int64_t k = 0, slot = oldest % window; k < window; ++k, slot = slot + 1 == window ? 0 : slot + 1)
    for (int q = 0; q < count; ++q) total[q] += taps[k] * load(ring[q][slot] + i);
}

// Pads a row by `border`. Its own values stand at row[pad..pad+length).
inline void pad_row(float* row, int64_t length, int64_t pad, Border border, float outside) {
  if (border == Border::valid) return;
  for (int64_t i = 0; i < pad; ++i) {
    row[i] = border == Border::zero ? outside : row[2 * pad - i];
    row[pad + length + i] = border == Border::zero ? outside : row[pad + length - 2 - i];
  }
}

// The adjoint of pad_row: what the padding received is added where the padding came from.
inline void fold_row(float* row, int64_t length, int64_t pad, Border border) {
  if (border != Border::reflect) return;
  for (int64_t i = 0; i < pad; ++i) {
    row[2 * pad - i] += row[i];
    row[pad + length - 2 - i] += row[pad + length + i];
  }
}

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
