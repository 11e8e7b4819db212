#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

struct MinmaxNormalizeArgs {
  const void* maps;  // [count, size] contiguous
  DType dtype;
  int64_t count;
  int64_t size;
  float* out;  // [count, size]
};

struct MinmaxNormalizeBackwardArgs {
  const void* maps;
  DType dtype;
  int64_t count;
  int64_t size;
  const float* upstream;  // [count, size] contiguous
  void* grad;             // [count, size] of the dtype of the maps
};

void minmax_normalize_cpu(const MinmaxNormalizeArgs& args, int threads);
int minmax_normalize_cuda(const MinmaxNormalizeArgs& args, void* stream);
void minmax_normalize_backward_cpu(const MinmaxNormalizeBackwardArgs& args, int threads);
int minmax_normalize_backward_cuda(const MinmaxNormalizeBackwardArgs& args, void* stream);

}  // namespace sal_fast
