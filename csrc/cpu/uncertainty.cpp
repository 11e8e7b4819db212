#include "sal_fast/launch/uncertainty.h"
#include "capability.h"
#include "parallel.h"

namespace sal_fast {

// The rows [begin, end), on one thread.
SAL_FAST_DECLARE(void uncertainty_rows(const UncertaintyArgs& args, int64_t begin, int64_t end))
SAL_FAST_DECLARE(void uncertainty_backward_rows(const UncertaintyBackwardArgs& args, int64_t begin,
                                                int64_t end))

void uncertainty_cpu(const UncertaintyArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(uncertainty_rows);
  parallel_for(args.rows, args.columns, threads, [&](int64_t begin, int64_t end) { rows(args, begin, end); });
}

void uncertainty_backward_cpu(const UncertaintyBackwardArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(uncertainty_backward_rows);
  parallel_for(args.rows, args.columns, threads, [&](int64_t begin, int64_t end) { rows(args, begin, end); });
}

}  // namespace sal_fast
