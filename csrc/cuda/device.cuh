// Launches, element types and 16-byte packs, which every .cu file needs. tests/emulation defines
// SAL_FAST_LAUNCH itself, to run the same source on the host.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "sal_fast/launch.h"

#ifndef SAL_FAST_LAUNCH
#define SAL_FAST_LAUNCH(kernel, grid, block, stream, ...) \
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#endif

namespace sal_fast {
namespace {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

template <typename scalar>
__device__ float to_float(scalar x) {
  return static_cast<float>(x);
}

template <typename scalar>
__device__ void from_float(float x, scalar& out) {
  out = static_cast<scalar>(x);
}

// 1 / x to within an ulp, if x and its reciprocal are normal numbers.
__device__ inline float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1.0f / x;
#endif
}

// Neighbours that one instruction moves, usually 16 bytes of them.
template <typename scalar, int count = 16 / sizeof(scalar)>
struct alignas(count * sizeof(scalar)) Pack {
  static constexpr int size = count;
  scalar at[count];
};

// Calls run with a zero of the CUDA type of `dtype`. Returns the error of the launches so far.
template <typename Run>
int with_scalar(DType dtype, Run run) {
  if (dtype == DType::float32) run(float{});
  if (dtype == DType::float16) run(__half{});
  if (dtype == DType::bfloat16) run(__nv_bfloat16{});
  return cudaGetLastError();
}

// Calls run with std::true_type or std::false_type, for a kernel that is compiled for either.
template <typename Run>
void with_flag(bool flag, Run run) {
  if (flag) return run(std::true_type{});
  run(std::false_type{});
}

// Value `at` of an array of this dtype.
__device__ inline float load_float(const void* values, DType dtype, int64_t at) {
  if (dtype == DType::float32) return static_cast<const float*>(values)[at];
  if (dtype == DType::bfloat16) return to_float(static_cast<const __nv_bfloat16*>(values)[at]);
  return to_float(static_cast<const __half*>(values)[at]);
}

// How many blocks do `count` jobs, `per_block` at a time. Bounded: the kernels stride over the grid.
inline unsigned blocks_for(int64_t count, int64_t per_block = 1) {
  constexpr int64_t kMostBlocks = 1 << 20;
  const int64_t blocks = (count + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

}  // namespace
}  // namespace sal_fast
