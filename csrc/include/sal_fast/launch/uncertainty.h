#pragma once

#include "sal_fast/launch.h"

namespace sal_fast {

enum class Kind : int { margin, least_confidence, entropy };

struct UncertaintyArgs {
  const void* logits;  // [rows, columns], a row contiguous
  DType dtype;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  Kind kind;
  float* out;  // [rows]
};

struct UncertaintyBackwardArgs {
  const void* logits;
  DType dtype;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
  Kind kind;
  const float* upstream;    // [rows]
  int64_t upstream_stride;  // 0 for an expanded scalar
  void* grad;               // [rows, columns] contiguous, of the dtype of the logits
};

void uncertainty_cpu(const UncertaintyArgs& args, int threads);
int uncertainty_cuda(const UncertaintyArgs& args, void* stream);
void uncertainty_backward_cpu(const UncertaintyBackwardArgs& args, int threads);
int uncertainty_backward_cuda(const UncertaintyBackwardArgs& args, void* stream);

}  // namespace sal_fast
