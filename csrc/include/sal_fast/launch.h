// The launchers: what bindings/module.cpp calls. Raw pointers, sizes in elements, no allocation, no
// synchronisation.
#pragma once

#include <cstdint>

namespace sal_fast {

enum class DType : int { float32, float16, bfloat16 };
enum class Kind : int;

// Storage of the half types; the arithmetic is in float.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// A matrix of logits: `rows` x `columns`, a row contiguous, rows `row_stride` elements apart.
struct Logits {
  const void* data;
  DType dtype;
  int64_t rows;
  int64_t columns;
  int64_t row_stride;
};

// out [rows] float32.
void uncertainty_forward_cpu(const Logits& logits, Kind kind, float* out, int threads);

// upstream [rows] float32, `upstream_stride` elements apart (0 for an expanded scalar);
// grad [rows, columns] contiguous, of the dtype of the logits.
void uncertainty_backward_cpu(const Logits& logits, Kind kind, const float* upstream, int64_t upstream_stride,
                              void* grad, int threads);

// On `stream` of the current device. 0, or the cudaError_t of a launch that failed.
int uncertainty_forward_cuda(const Logits& logits, Kind kind, float* out, void* stream);
int uncertainty_backward_cuda(const Logits& logits, Kind kind, const float* upstream, int64_t upstream_stride,
                              void* grad, void* stream);

// "compiled", or why there is no CUDA in this build.
const char* cuda_status();
const char* cuda_error_string(int error);

}  // namespace sal_fast
