#pragma once

#include <cstdint>
#include <cstring>

struct __half {
  uint16_t bits;

  __half() = default;
  __half(float x) {
    const auto half = static_cast<_Float16>(x);
    std::memcpy(&bits, &half, sizeof bits);
  }
  operator float() const {
    _Float16 half;
    std::memcpy(&half, &bits, sizeof half);
    return static_cast<float>(half);
  }
};
