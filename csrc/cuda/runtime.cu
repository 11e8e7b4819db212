#include <cuda_runtime.h>

#include "sal_fast/launch.h"

namespace sal_fast {

const char* cuda_status() {
  return "compiled";
}
const char* cuda_error_string(int error) {
  return cudaGetErrorString(static_cast<cudaError_t>(error));
}

}  // namespace sal_fast
