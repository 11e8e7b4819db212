// The CUDA launchers of a build without CUDA. sal_fast.ops looks at cuda_status() and never calls them.
#include "launchers.h"

namespace sal_fast {

#define SAL_FAST_STUB(name, Args, ...)  \
  int name##_cuda(const Args&, void*) { \
    return -1;                          \
  }
SAL_FAST_LAUNCHERS(SAL_FAST_STUB)

int64_t ssim_workspace(const SsimArgs&) {
  return 0;
}
int64_t saliency_loss_workspace(const SaliencyLossArgs&) {
  return 0;
}

const char* cuda_status() {
  return SAL_FAST_NO_CUDA_REASON;
}
const char* cuda_error_string(int) {
  return "sal_fast was compiled without CUDA: " SAL_FAST_NO_CUDA_REASON;
}

}  // namespace sal_fast
