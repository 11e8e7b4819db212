#pragma once

#include "sal_fast/launch/mask.h"

namespace sal_fast {

struct DiceArgs {
  int64_t images;
  Mask first;
  Mask second;   // of the size of the first
  double empty;  // the Dice of two masks without a pixel
  float* dice;   // [images]
};

void dice_cpu(const DiceArgs& args, int threads);
int dice_cuda(const DiceArgs& args, void* stream);

}  // namespace sal_fast
