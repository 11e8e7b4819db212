#include <cuda_runtime.h>

#include "sal_fast/launch.h"

namespace sal_fast {
namespace {

__global__ void nothing() {}

}  // namespace

const char* cuda_status() {
  return "compiled";
}
const char* cuda_error_string(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}
const char* cuda_problem(int device) {
  int before = 0;
  cudaFuncAttributes attributes;
  cudaError_t error = cudaGetDevice(&before);
  if (error == cudaSuccess) error = cudaSetDevice(device);
  if (error == cudaSuccess) {
    error = cudaFuncGetAttributes(&attributes, nothing);
    cudaSetDevice(before);
  }
  cudaGetLastError();  // so that nobody else finds it
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace sal_fast
