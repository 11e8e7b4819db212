// The CUDA execution model on the host, for tests: csrc/cuda/*.cu compiles as it is, as C++, against this
// header.
//
// A thread of a block is a fiber. A seed shuffles the order in which fibers and blocks run. A barrier or a
// shuffle that the threads concerned do not all reach ends the program with a report, and so do races, reads
// of what nobody wrote and accesses outside the buffers (memory.h). It says nothing about speed, registers or
// the compiler.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define SAL_FAST_EMULATED
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static thread_local  // the program has one thread: see memory.cpp

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
enum cudaError_t : int { cudaSuccess = 0, cudaErrorInvalidValue = 1 };
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline const char* cudaGetErrorString(cudaError_t error) {
  return error == cudaSuccess ? "no error" : "invalid argument";
}
inline cudaError_t cudaDeviceSynchronize() {
  return cudaSuccess;
}
enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost };
// The memory holds nothing at first, and nobody owns what lies around it: see memory.h.
cudaError_t cudaMalloc(void** data, size_t bytes);
cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaFree(void* data);

// Those of the fiber that runs.
extern dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulation {

extern unsigned seed;
extern unsigned most_blocks;  // a kernel that strides over its grid must do with fewer

void run_grid(const char* kernel, dim3 grid, dim3 block, void (*thread)(void*), void* arguments);

// The code of the emulation itself inside a kernel is not watched.
#define SAL_FAST_NOT_WATCHED __attribute__((no_sanitize("thread"), noinline))

template <typename... Parameters, typename... Args>
void launch(const char* name, void (*kernel)(Parameters...), dim3 grid, dim3 block, Args... args) {
  auto body = [=]() SAL_FAST_NOT_WATCHED { kernel(args...); };
  run_grid(
      name, grid, block, [](void* b) SAL_FAST_NOT_WATCHED { (*static_cast<decltype(body)*>(b))(); }, &body);
}

int lane();  // of the thread that runs, in its warp
void warp_barrier(unsigned mask, int line);
unsigned ballot(unsigned mask, bool predicate, int line);
uint64_t shuffle(const char* operation, unsigned mask, uint64_t mine, int source, int width, int line);
void changes_atomically(const void* data, size_t bytes, const void* code);

template <typename T>
T shuffle_as(const char* operation, unsigned mask, T mine, int source, int width, int line) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &mine, sizeof mine);
  bits = shuffle(operation, mask, bits, source, width, line);
  std::memcpy(&mine, &bits, sizeof mine);
  return mine;
}

// Fibers switch at barriers only, so a plain read and write is atomic.
template <typename T, typename Change>
SAL_FAST_NOT_WATCHED T change(T* p, Change change_it, const void* code) {
  changes_atomically(p, sizeof *p, code);
  const T old = *p;
  *p = change_it(old);
  return old;
}

}  // namespace emulation

#define SAL_FAST_LAUNCH(kernel, grid, block, stream, ...) \
  (static_cast<void>(stream), emulation::launch(#kernel, kernel, grid, block, __VA_ARGS__))

void __syncthreads(int line = __builtin_LINE());
int __syncthreads_or(int predicate, int line = __builtin_LINE());

inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
  emulation::warp_barrier(mask, line);
}

template <typename T>
T __shfl_sync(unsigned mask, T mine, int source, int width = 32, int line = __builtin_LINE()) {
  const int first = emulation::lane() / width * width;
  return emulation::shuffle_as("__shfl_sync", mask, mine, first + (source & (width - 1)), width, line);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T mine, int lanes, int width = 32, int line = __builtin_LINE()) {
  return emulation::shuffle_as("__shfl_xor_sync", mask, mine, emulation::lane() ^ lanes, width, line);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T mine, int delta, int width = 32, int line = __builtin_LINE()) {
  return emulation::shuffle_as("__shfl_down_sync", mask, mine, emulation::lane() + delta, width, line);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T mine, int delta, int width = 32, int line = __builtin_LINE()) {
  return emulation::shuffle_as("__shfl_up_sync", mask, mine, emulation::lane() - delta, width, line);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
  return emulation::ballot(mask, predicate != 0, line);
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

template <typename T, typename U>
T atomicAdd(T* p, U value) {
  return emulation::change(
      p, [=](T old) { return static_cast<T>(old + value); }, __builtin_return_address(0));
}

template <typename T>
T atomicMax(T* p, T value) {
  return emulation::change(p, [=](T old) { return old < value ? value : old; }, __builtin_return_address(0));
}

template <typename T>
T atomicMin(T* p, T value) {
  return emulation::change(p, [=](T old) { return value < old ? value : old; }, __builtin_return_address(0));
}

template <typename T>
T atomicCAS(T* p, T expected, T value) {
  return emulation::change(
      p, [=](T old) { return old == expected ? value : old; }, __builtin_return_address(0));
}
