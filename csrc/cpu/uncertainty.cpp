#include "capability.h"
#include "parallel.h"
#include "uncertainty_rows.h"

namespace sal_fast {

void uncertainty_cpu(const UncertaintyArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(uncertainty_rows);
  parallel_for(args.rows, args.columns, threads, [&](int64_t begin, int64_t end) { rows(args, begin, end); });
}

void uncertainty_backward_cpu(const UncertaintyBackwardArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(uncertainty_backward_rows);
  parallel_for(args.rows, args.columns, threads, [&](int64_t begin, int64_t end) { rows(args, begin, end); });
}

}  // namespace sal_fast
