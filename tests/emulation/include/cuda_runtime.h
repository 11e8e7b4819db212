// The CUDA execution model on the host, for tests: csrc/cuda/*.cu compiles as it is, as C++, against this
// header.
//
// A thread of a block is a fiber. A seed shuffles the order in which fibers and blocks run, so that a missing
// barrier gives a wrong answer under some seed; static shared memory is filled with 0xff (NaN) before each
// block; a barrier or a shuffle that the threads concerned do not all reach ends the program with a report.
// It says nothing about speed, memory ordering, registers or the compiler.
#pragma once

#include <climits>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local  // the program has one thread: see poison_shared_memory

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

using cudaStream_t = void*;
enum cudaError_t : int { cudaSuccess = 0 };
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t) {
  return "no error";
}

// Those of the fiber that runs.
extern dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulation {

extern unsigned seed;
extern unsigned most_blocks;  // a kernel that strides over its grid must do with fewer

void run_grid(const char* kernel, dim3 grid, dim3 block, const std::function<void()>& thread);

template <typename... Parameters, typename... Args>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, Args... args) {
  run_grid(name, grid, block, [=] { kernel(args...); });
}

// The values that the lanes of a warp brought to a meeting; those of lanes outside the mask are 0xff.
struct Meeting {
  uint64_t value[32];
  unsigned mask;
  int lane;
};

// Waits for every lane of `mask` at the same operation of the same source line.
const Meeting& meet(const char* operation, unsigned mask, uint64_t value, int line);

template <typename T>
T exchange(const char* operation, unsigned mask, T mine, int line, const std::function<int(int)>& source) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &mine, sizeof mine);
  const Meeting& met = meet(operation, mask, bits, line);
  T theirs;
  std::memcpy(&theirs, &met.value[source(met.lane)], sizeof theirs);
  return theirs;
}

// The source lane within a group of `width`, or the lane itself when it would lie outside.
inline int within(int lane, int source, int width) {
  return source / width == lane / width ? source : lane;
}

}  // namespace emulation

#define SAL_FAST_LAUNCH(kernel, grid, block, stream, ...) \
  (static_cast<void>(stream), emulation::launch(#kernel, kernel, grid, block, __VA_ARGS__))

void __syncthreads(int line = __builtin_LINE());

inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) {
  static int votes = 0;
  votes |= predicate != 0;
  __syncthreads(line);
  const int result = votes;
  __syncthreads(line);
  votes = 0;
  __syncthreads(line);
  return result;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
  emulation::meet("__syncwarp", mask, 0, line);
}

template <typename T>
T __shfl_sync(unsigned mask, T mine, int source, int width = 32, int line = __builtin_LINE()) {
  return emulation::exchange("__shfl_sync", mask, mine, line,
                             [=](int lane) { return lane / width * width + (source & (width - 1)); });
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T mine, int lanes, int width = 32, int line = __builtin_LINE()) {
  return emulation::exchange("__shfl_xor_sync", mask, mine, line,
                             [=](int lane) { return emulation::within(lane, lane ^ lanes, width); });
}

template <typename T>
T __shfl_down_sync(unsigned mask, T mine, int delta, int width = 32, int line = __builtin_LINE()) {
  return emulation::exchange("__shfl_down_sync", mask, mine, line,
                             [=](int lane) { return emulation::within(lane, lane + delta, width); });
}

template <typename T>
T __shfl_up_sync(unsigned mask, T mine, int delta, int width = 32, int line = __builtin_LINE()) {
  return emulation::exchange("__shfl_up_sync", mask, mine, line, [=](int lane) {
    return lane < delta ? lane : emulation::within(lane, lane - delta, width);
  });
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  const emulation::Meeting& met = emulation::meet("__ballot_sync", mask, predicate != 0, line);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1u) votes |= static_cast<unsigned>(met.value[lane] & 1) << lane;
  return votes;
}

inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, line) != 0;
}

inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return __ballot_sync(mask, predicate, line) == mask;
}

inline int __popc(unsigned x) {
  return __builtin_popcount(x);
}
inline unsigned __vminu4(unsigned a, unsigned b) {
  unsigned least = 0;
  for (int i = 0; i < 32; i += 8) {
    const unsigned mask = 0xffu << i;
    least |= (a & mask) < (b & mask) ? a & mask : b & mask;
  }
  return least;
}
inline unsigned __vmaxu4(unsigned a, unsigned b) {
  return ~__vminu4(~a, ~b);
}
inline int __ffs(int x) {
  return __builtin_ffs(x);
}

// Fibers switch at barriers only, so a plain read and write is atomic.
template <typename T, typename U>
T atomicAdd(T* p, U value) {
  const T old = *p;
  *p = static_cast<T>(old + value);
  return old;
}

template <typename T>
T atomicMax(T* p, T value) {
  const T old = *p;
  *p = old < value ? value : old;
  return old;
}

template <typename T>
T atomicMin(T* p, T value) {
  const T old = *p;
  *p = value < old ? value : old;
  return old;
}

template <typename T>
T atomicCAS(T* p, T expected, T value) {
  const T old = *p;
  if (old == expected) *p = value;
  return old;
}
