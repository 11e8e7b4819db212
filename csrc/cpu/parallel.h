#pragma once

#include <cstdint>
#include <functional>

namespace sal_fast {

// Calls body(begin, end) on ranges that together cover [0, rows), on up to `threads` threads with the calling
// one. `row_cost` is the number of elements in a row: work too small to pay for a thread stays on the caller.
void parallel_for(int64_t rows, int64_t row_cost, int threads,
                  const std::function<void(int64_t, int64_t)>& body);

}  // namespace sal_fast
