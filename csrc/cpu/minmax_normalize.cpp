#include "sal_fast/launch/minmax_normalize.h"
#include "capability.h"
#include "parallel.h"

namespace sal_fast {

// The maps [begin, end), on one thread.
SAL_FAST_DECLARE(void minmax_normalize_rows(const MinmaxNormalizeArgs& args, int64_t begin, int64_t end))
SAL_FAST_DECLARE(void minmax_normalize_backward_rows(const MinmaxNormalizeBackwardArgs& args, int64_t begin,
                                                     int64_t end))

void minmax_normalize_cpu(const MinmaxNormalizeArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(minmax_normalize_rows);
  parallel_for(args.count, args.size, threads, [&](int64_t begin, int64_t end) { rows(args, begin, end); });
}

void minmax_normalize_backward_cpu(const MinmaxNormalizeBackwardArgs& args, int threads) {
  const auto rows = SAL_FAST_DISPATCH(minmax_normalize_backward_rows);
  parallel_for(args.count, args.size, threads, [&](int64_t begin, int64_t end) { rows(args, begin, end); });
}

}  // namespace sal_fast
