// The images [begin, end) of an op, on one thread. Defined once per instruction set by dice_rows.cpp.
#pragma once

#include "sal_fast/launch/dice.h"

#define SAL_FAST_DECLARE_DICE(isa)                                                    \
  namespace isa {                                                                     \
  /* memory: ceil(width / 32) words, twice. */                                        \
  void dice_rows(const DiceArgs& args, int64_t begin, int64_t end, uint32_t* memory); \
  }

namespace sal_fast {
SAL_FAST_DECLARE_DICE(generic)
SAL_FAST_DECLARE_DICE(avx2)
SAL_FAST_DECLARE_DICE(avx512)
}  // namespace sal_fast
