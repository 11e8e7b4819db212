// The CUDA launchers of a build without CUDA. sal_fast.ops looks at cuda_status() and never calls them.
#include "launchers.h"

namespace sal_fast {

#define SAL_FAST_STUB(op, Args)           \
  int op##_cuda(const Args&, void*) {     \
    return -1;                            \
  }                                       \
  int64_t workspace_floats(const Args&) { \
    return 0;                             \
  }
SAL_FAST_LAUNCHERS(SAL_FAST_STUB)

const char* cuda_status() {
  return SAL_FAST_NO_CUDA_REASON;
}
const char* cuda_error_string(int) {
  return "sal_fast was compiled without CUDA: " SAL_FAST_NO_CUDA_REASON;
}

const char* cuda_problem(int) {
  return cuda_status();
}

}  // namespace sal_fast
