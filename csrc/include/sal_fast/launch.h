// The launchers: what csrc/bindings calls. For an op, with the struct of its arguments in launch/<op>.h:
//
//   void <op>_cpu(const <Op>Args&, int threads);
//   int <op>_cuda(const <Op>Args&, void* stream);   // 0, or the cudaError_t of a launch that failed
//
// Raw pointers, sizes and strides in elements; no allocation on the device, no synchronisation, the stream
// given and the current device.
#pragma once

#include <cstdint>

namespace sal_fast {

// The longest side of a CAM and of what it is enlarged to: int holds every product of two of them.
constexpr int64_t kMostSide = 1 << 14;

enum class DType : int { float32, float16, bfloat16 };

// Storage of the half types; the arithmetic is in float.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// "compiled", or why there is no CUDA in this build.
const char* cuda_status();
const char* cuda_error_string(int error);

}  // namespace sal_fast
