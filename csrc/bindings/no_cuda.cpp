// The CUDA launchers of a build without CUDA. sal_fast.ops looks at cuda_status() and never calls them.
#include "sal_fast/launch.h"

namespace sal_fast {
namespace {
constexpr int kNotCompiled = -1;
}

int uncertainty_forward_cuda(const Logits&, Kind, float*, void*) {
  return kNotCompiled;
}
int uncertainty_backward_cuda(const Logits&, Kind, const float*, int64_t, void*, void*) {
  return kNotCompiled;
}

const char* cuda_status() {
  return SAL_FAST_NO_CUDA_REASON;
}
const char* cuda_error_string(int) {
  return "sal_fast was compiled without CUDA: " SAL_FAST_NO_CUDA_REASON;
}

}  // namespace sal_fast
