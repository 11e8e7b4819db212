#include "capability.h"
#include "parallel.h"
#include "sal_fast/launch.h"
#include "uncertainty_rows.h"

namespace sal_fast {

void uncertainty_forward_cpu(const Logits& logits, Kind kind, float* out, int threads) {
  const auto rows = SAL_FAST_DISPATCH(uncertainty_forward_rows);
  parallel_for(logits.rows, logits.columns, threads,
               [&](int64_t begin, int64_t end) { rows(logits, kind, out, begin, end); });
}

void uncertainty_backward_cpu(const Logits& logits, Kind kind, const float* upstream, int64_t upstream_stride,
                              void* grad, int threads) {
  const auto rows = SAL_FAST_DISPATCH(uncertainty_backward_rows);
  parallel_for(logits.rows, logits.columns, threads, [&](int64_t begin, int64_t end) {
    rows(logits, kind, upstream, upstream_stride, grad, begin, end);
  });
}

}  // namespace sal_fast
