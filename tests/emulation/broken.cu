// Kernels with one defect each, and the same kernels without it: what the emulation must catch, and must let
// pass. argv: the kernel's name, the seed. Exit status 2: a wrong answer.
#include <cuda_runtime.h>

#include <cstdlib>
#include <map>
#include <string>
#include <vector>

namespace {

constexpr int kThreads = 64;
constexpr int kBlocks = 2;

// Every kernel reverses the values of its block.
using Kernel = void(const float* in, float* out);

template <bool kBarrier>
__global__ void reverse(const float* in, float* out) {
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = in[threadIdx.x];
  if (kBarrier) __syncthreads();
  out[threadIdx.x] = shared[kThreads - 1 - threadIdx.x];
}

// The second half of the barriers keeps a later pass from overwriting what others still read.
template <bool kBarrier>
__global__ void reverse_twice(const float* in, float* out) {
  __shared__ float shared[kThreads];
  float value = in[kThreads - 1 - threadIdx.x];
  for (int pass = 0; pass < 2; ++pass) {
    shared[threadIdx.x] = value;
    __syncthreads();
    value = shared[kThreads - 1 - threadIdx.x];
    if (kBarrier) __syncthreads();
  }
  out[threadIdx.x] = value;
}

template <bool kBarrier>
__global__ void reverse_warps(const float* in, float* out) {
  const unsigned across = threadIdx.x ^ 31;  // in the same warp
  __shared__ float shared[kThreads];
  shared[threadIdx.x] = in[kThreads - 1 - across];
  if (kBarrier) __syncwarp();
  out[threadIdx.x] = shared[across];
}

// As reverse_twice, with the barriers of a warp.
template <bool kBarrier>
__global__ void reverse_warps_twice(const float* in, float* out) {
  const unsigned across = threadIdx.x ^ 31;
  __shared__ float shared[kThreads];
  float value = in[kThreads - 1 - threadIdx.x];
  for (int pass = 0; pass < 2; ++pass) {
    shared[threadIdx.x] = value;
    __syncwarp();
    value = shared[across];
    if (kBarrier) __syncwarp();
  }
  out[threadIdx.x] = value;
}

__global__ void unwritten_shared(const float* in, float* out) {
  __shared__ float shared[kThreads + 1];
  shared[threadIdx.x] = in[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = shared[kThreads - threadIdx.x];
}

__global__ void unwritten_workspace(const float* in, float* out) {
  out[threadIdx.x] += in[kThreads - 1 - threadIdx.x];
}

__global__ void blocks_write_the_same(const float* in, float* out) {
  (out - blockIdx.x * kThreads)[threadIdx.x] = in[kThreads - 1 - threadIdx.x];
}

// The launch before has read what it writes, in all blocks.
__global__ void later_launch(const float* in, float* out) {
  if (blockIdx.x == 0) const_cast<float*>(in)[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = kThreads - 1.0f - threadIdx.x;
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

// The odd lanes agree on their mask, and then look at the even ones.
__global__ void foreign_lane(const float* in, float* out) {
  if (threadIdx.x % 2) out[threadIdx.x] = __shfl_xor_sync(0xaaaaaaaau, in[threadIdx.x], 1);
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

template <Kernel kernel>
__global__ void of_block(const float* in, float* out) {
  kernel(in, out + blockIdx.x * kThreads);
}

}  // namespace

int main(int, char** argv) {
  emulation::seed = std::atoi(argv[2]);
  std::vector<float> in(kThreads), out(kBlocks * kThreads);
  for (int i = 0; i < kThreads; ++i) in[i] = static_cast<float>(i);
#define KERNEL(name, ...)       \
  {                             \
    name, of_block<__VA_ARGS__> \
  }
  const std::map<std::string, Kernel*> kernels = {
      KERNEL("barrier", reverse<true>),
      KERNEL("missing_barrier", reverse<false>),
      KERNEL("second_barrier", reverse_twice<true>),
      KERNEL("missing_second_barrier", reverse_twice<false>),
      KERNEL("warp_barrier", reverse_warps<true>),
      KERNEL("missing_warp_barrier", reverse_warps<false>),
      KERNEL("second_warp_barrier", reverse_warps_twice<true>),
      KERNEL("missing_second_warp_barrier", reverse_warps_twice<false>),
      KERNEL("unwritten_shared", unwritten_shared),
      KERNEL("unwritten_workspace", unwritten_workspace),
      KERNEL("blocks_write_the_same", blocks_write_the_same),
      KERNEL("later_launch", later_launch),
      KERNEL("early_exit", early_exit),
      KERNEL("two_barriers", two_barriers),
      KERNEL("partial_shuffle", partial_shuffle),
      KERNEL("foreign_lane", foreign_lane),
      KERNEL("one_past_the_end", one_past_the_end),
      KERNEL("misaligned", misaligned),
      KERNEL("warp_sum", warp_sum),
  };
  void *in_there, *out_there;
  cudaMalloc(&in_there, in.size() * sizeof(float));
  cudaMalloc(&out_there, out.size() * sizeof(float));
  cudaMemcpy(in_there, in.data(), in.size() * sizeof(float), cudaMemcpyHostToDevice);
  const auto launch = [&](const std::string& name) {
    emulation::launch(name.c_str(), kernels.at(name), kBlocks, kThreads, static_cast<const float*>(in_there),
                      static_cast<float*>(out_there));
  };
  if (argv[1] == std::string("later_launch")) launch("barrier");
  launch(argv[1]);
  cudaMemcpy(out.data(), out_there, out.size() * sizeof(float), cudaMemcpyDeviceToHost);
  for (size_t i = 0; i < out.size(); ++i)
    if (!(out[i] == in[kThreads - 1 - i % kThreads])) return 2;
}
