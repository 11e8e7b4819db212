#pragma once

#include <cstdint>
#include <new>

namespace sal_fast {

// Memory of one thread, aligned for the widest vectors.
class Scratch {
 public:
  explicit Scratch(int64_t floats)
      : data_(static_cast<float*>(operator new(floats * sizeof(float), kAligned))) {}
  ~Scratch() { operator delete(data_, kAligned); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const { return data_; }

 private:
  static constexpr std::align_val_t kAligned{64};
  float* data_;
};

}  // namespace sal_fast
