#include "capability.h"
#include "minmax_normalize_rows.h"
#include "parallel.h"

namespace sal_fast {

void minmax_normalize_cpu(const MinmaxNormalizeArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(minmax_normalize_rows);
  parallel_for(args.count, args.size, threads, [&](int64_t begin, int64_t end) { rows(args, begin, end); });
}

void minmax_normalize_backward_cpu(const MinmaxNormalizeBackwardArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(minmax_normalize_backward_rows);
  parallel_for(args.count, args.size, threads, [&](int64_t begin, int64_t end) { rows(args, begin, end); });
}

}  // namespace sal_fast
