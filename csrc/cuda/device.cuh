// What every .cu file needs: launches, element types, 16-byte packs. tests/emulation defines SAL_FAST_LAUNCH
// itself, to run the same source on the host.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "sal_fast/launch.h"

#ifndef SAL_FAST_LAUNCH
#define SAL_FAST_LAUNCH(kernel, grid, block, stream, ...) \
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#endif

namespace sal_fast {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ float to_float(float x) {
  return x;
}
__device__ float to_float(__half x) {
  return __half2float(x);
}
__device__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

__device__ void from_float(float x, float& out) {
  out = x;
}
__device__ void from_float(float x, __half& out) {
  out = __float2half(x);
}
__device__ void from_float(float x, __nv_bfloat16& out) {
  out = __float2bfloat16(x);
}

// 1 / x to an ulp, of a normal x with a normal reciprocal.
__device__ inline float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1.0f / x;
#endif
}

// 16 bytes, moved by one instruction.
template <typename scalar>
struct alignas(16) Pack {
  static constexpr int size = 16 / sizeof(scalar);
  scalar at[size];
};

// Calls run with a zero of the CUDA type of `dtype`.
template <typename Run>
void with_scalar(DType dtype, Run run) {
  switch (dtype) {
    case DType::float32:
      run(float{});
      break;
    case DType::float16:
      run(__half{});
      break;
    case DType::bfloat16:
      run(__nv_bfloat16{});
      break;
  }
}

}  // namespace
}  // namespace sal_fast
