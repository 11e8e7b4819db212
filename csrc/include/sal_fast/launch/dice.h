#pragma once

#include "sal_fast/launch/mask.h"

namespace sal_fast {

// clang-format off
#define SAL_FAST_DICE(FIELD)                                                   \
  FIELD(int64_t, images)                                                       \
  FIELD(Mask, first)                                                           \
  FIELD(Mask, second)   /* of the size of the first */                         \
  FIELD(double, empty)  /* the Dice of two masks that are both empty */        \
  FIELD(float*, dice)   /* [images] */
// clang-format on

SAL_FAST_LAUNCHER(dice, DiceArgs, SAL_FAST_DICE)

}  // namespace sal_fast
