// The memory of one thread, in rows.
//
// A row has room for kSlack more elements than it is long, so that loops run over whole vectors. What they
// write there is never read as a value.
#pragma once

#include <new>

#include "vec.h"

namespace sal_fast {
inline namespace SAL_FAST_ISA {

constexpr int64_t kSlack = 2 * kLanes;

// Floats, aligned for the widest vectors.
class Scratch {
 public:
  explicit Scratch(int64_t size)
      : floats_(static_cast<float*>(operator new(size * sizeof(float), kAligned))) {}
  ~Scratch() { operator delete(floats_, kAligned); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  operator float*() const { return floats_; }
  uint32_t* words() const { return reinterpret_cast<uint32_t*>(floats_); }

 private:
  static constexpr std::align_val_t kAligned{64};
  float* const floats_;
};

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
    const int64_t stride = padded(length + kSlack);
    const Rows rows{memory_ ? memory_ + used_ : nullptr, stride};
    used_ += count * stride;
    return rows;
  }
  float* row(int64_t length) { return rows(1, length).first; }
  // A row of doubles, with room for kSlack more.
  double* doubles(int64_t length) { return reinterpret_cast<double*>(row(2 * length + kSlack)); }
  uint32_t* words(int64_t length) { return reinterpret_cast<uint32_t*>(row(length)); }
  // Clears what was handed out after the first `used` floats.
  void clear(int64_t used = 0) const {
    if (memory_) std::memset(memory_ + used, 0, (used_ - used) * sizeof(float));
  }
  int64_t used() const { return used_; }

 private:
  float* memory_;
  int64_t used_ = 0;
};

}  // namespace SAL_FAST_ISA
}  // namespace sal_fast
