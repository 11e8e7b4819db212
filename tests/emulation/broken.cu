// Kernels with one defect each, and the same kernel without it: what the emulation must catch, and must let
// pass. argv: the kernel's name, the seed. Exit status 2: a wrong answer.
#include <cuda_runtime.h>

#include <cstdlib>
#include <string>
#include <vector>

namespace {

constexpr int kThreads = 64;

template <bool kBarrier>
__global__ void reverse(const float* in, float* out) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = in[threadIdx.x];
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

__global__ void early_exit(const float* in, float* out) {
  if (threadIdx.x == 7) return;
  __syncthreads();
  out[threadIdx.x] = in[threadIdx.x];
}

__global__ void two_barriers(const float* in, float* out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = in[threadIdx.x];
}

__global__ void partial_shuffle(const float* in, float* out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(0xffffffffu, in[threadIdx.x], 1);
}

__global__ void one_past_the_end(const float* in, float* out) {
  out[threadIdx.x] = in[threadIdx.x + 1];
}

__global__ void misaligned(const float* in, float* out) {
  if (threadIdx.x < kThreads / 4 - 1)
    out[threadIdx.x] = reinterpret_cast<const float4*>(in + 1)[threadIdx.x].x;
}

// The sum by shuffles and votes, which every lane gets: (63 * 64 / 2) of both warps.
__global__ void warp_sum(const float* in, float* out) {
  float sum = in[threadIdx.x];
  for (int delta = 16; delta > 0; delta /= 2) sum += __shfl_down_sync(0xffffffffu, sum, delta);
  __shared__ float total;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  if (threadIdx.x % 32 == 0) atomicAdd(&total, sum);
  __syncthreads();
  const bool agreed = __all_sync(0xffffffffu, total == 2016) && !__any_sync(0xffffffffu, total != 2016) &&
                      __ballot_sync(0xffffffffu, threadIdx.x % 2) == 0xaaaaaaaau &&
                      __shfl_sync(0xffffffffu, threadIdx.x % 32, 5) == 5;
  out[threadIdx.x] = agreed ? kThreads - 1.0f - threadIdx.x : -1.0f;
}

}  // namespace

int main(int, char** argv) {
  const std::string name = argv[1];
  emulation::seed = std::atoi(argv[2]);
  std::vector<float> in(kThreads), out(kThreads, -1);
  for (int i = 0; i < kThreads; ++i) in[i] = static_cast<float>(i);
  const auto kernel = name == "barrier"            ? reverse<true>
                      : name == "missing_barrier"  ? reverse<false>
                      : name == "early_exit"       ? early_exit
                      : name == "two_barriers"     ? two_barriers
                      : name == "partial_shuffle"  ? partial_shuffle
                      : name == "one_past_the_end" ? one_past_the_end
                      : name == "misaligned"       ? misaligned
                                                   : warp_sum;
  emulation::launch(name.c_str(), kernel, 2, kThreads, in.data(), out.data());
  for (int i = 0; i < kThreads; ++i)
    if (!(out[i] == in[kThreads - 1 - i])) return 2;
}
