// Planes of floats under a window, which ssim and saliency_loss share.
#pragma once

#include "scratch.h"
// scratch.h comes first: the templates below find its overloads by ordinary lookup.
#include "sal_fast/ssim.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

// out[q][i] = sum_k taps[k] in[q][i + k]. The window is `fixed`, if that is not 0.
template <int count, int fixed = 0>
inline void blur_along(const float* taps, int64_t any_window, const float* const (&in)[count],
                       float* const (&out)[count], int64_t length) {
  const int64_t window = fixed ? fixed : any_window;
  for (int64_t i = 0; i < length; i += kLanes) {
    Vec total[count] = {};
    for (int64_t k = 0; k < window; ++k)
      for (int q = 0; q < count; ++q) total[q] += taps[k] * load(in[q] + i + k);
    for (int q = 0; q < count; ++q) store(total[q], out[q] + i);
  }
}

// The same for one vector at column i, across the rows of rings: that of row r is ring[r % window].
template <int count, int fixed = 0>
inline void blur_across(const float* taps, int64_t any_window, const Rows (&ring)[count], int64_t oldest,
                        int64_t i, Vec (&total)[count]) {
  const int64_t window = fixed ? fixed : any_window;
  for (int q = 0; q < count; ++q) total[q] = Vec{};
  for (int64_t k = 0, slot = oldest % window; k < window; ++k, slot = slot + 1 == window ? 0 : slot + 1)
    for (int q = 0; q < count; ++q) total[q] += taps[k] * load(ring[q][slot] + i);
}

// A plane under a window. Values are shifted by half their range.
class Plane {
 protected:
  template <typename Args>
  Plane(const Args& args, double data_range, const float* taps)
      : taps_(taps),
        border_(args.border),
        window_(args.window),
        height_(args.height),
        width_(args.width),
        constants_(ssim_constants(data_range, args.window)) {}

  // The row or column of the plane that stands in one of the padded plane, or -1 for none.
  int64_t row_at(int64_t row) const { return padded_index(row - pad_, height_, pad_, border_); }
  int64_t column_at(int64_t column) const { return padded_index(column - pad_, width_, pad_, border_); }

  // A ring holds the `window` latest rows.
  float* slot(const Rows& ring, int64_t row) const { return ring[row % window_]; }

  // Pads a row, whose own values stand at row[pad..pad+width).
  template <typename T>
  void pad_row(T* row, T outside) const {
    if (border_ == Border::valid) return;
    for (int64_t i = 0; i < pad_; ++i) {
      row[i] = border_ == Border::zero ? outside : row[2 * pad_ - i];
      row[pad_ + width_ + i] = border_ == Border::zero ? outside : row[pad_ + width_ - 2 - i];
    }
  }

  // The adjoint of pad_row: what the padding received is added where the padding came from.
  void fold_row(float* row) const {
    if (border_ != Border::reflect) return;
    for (int64_t i = 0; i < pad_; ++i) {
      row[2 * pad_ - i] += row[i];
      row[pad_ + width_ - 2 - i] += row[pad_ + width_ + i];
    }
  }

  const float* const taps_;
  const Border border_;
  const int64_t window_, height_, width_;
  const SsimConstants constants_;
  const float outside_ = -constants_.shift;  // the value of padding with zeros
  const int64_t pad_ = padding(window_, border_);
  const int64_t padded_height_ = height_ + 2 * pad_, padded_width_ = width_ + 2 * pad_;
  // The positions of the window.
  const int64_t down_ = padded_height_ - window_ + 1, across_ = padded_width_ - window_ + 1;
};

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
