#include "sal_fast/launch/dice.h"

#include "capability.h"
#include "parallel.h"
#include "scratch.h"

namespace sal_fast {

// The images [begin, end), on one thread. memory: twice ceil(width / 32) words.
SAL_FAST_DECLARE(void dice_rows(const DiceArgs& args, int64_t begin, int64_t end, uint32_t* memory))

void dice_cpu(const DiceArgs& args, int threads) {
  const auto run = SAL_FAST_DISPATCH(dice_rows);
  const int64_t words = (args.first.width + 31) / 32;
  const int64_t cost = args.first.height * words * 4;  // a word takes about as long as 4 elements elsewhere
  parallel_for(args.images, cost, threads, [&](int64_t begin, int64_t end) {
    const Scratch scratch(2 * words);
    run(args, begin, end, reinterpret_cast<uint32_t*>(scratch.data()));
  });
}

}  // namespace sal_fast
