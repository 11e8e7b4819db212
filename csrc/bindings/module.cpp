// sal_fast._C: pointers and the stream come as integers; sal_fast.ops checks, allocates and keeps tensors
// alive.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "capability.h"
#include "sal_fast/launch.h"

namespace py = pybind11;

namespace sal_fast {
namespace {

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

Logits logits_of(uintptr_t data, int dtype, int64_t rows, int64_t columns, int64_t row_stride) {
  return {pointer<const void>(data), static_cast<DType>(dtype), rows, columns, row_stride};
}

void check(int error, const char* launcher) {
  if (error != 0) throw std::runtime_error(std::string(launcher) + ": " + cuda_error_string(error));
}

void forward_cpu(uintptr_t data, int dtype, int64_t rows, int64_t columns, int64_t row_stride, int kind,
                 uintptr_t out, int threads) {
  uncertainty_forward_cpu(logits_of(data, dtype, rows, columns, row_stride), static_cast<Kind>(kind),
                          pointer<float>(out), threads);
}

void backward_cpu(uintptr_t data, int dtype, int64_t rows, int64_t columns, int64_t row_stride, int kind,
                  uintptr_t upstream, int64_t upstream_stride, uintptr_t grad, int threads) {
  uncertainty_backward_cpu(logits_of(data, dtype, rows, columns, row_stride), static_cast<Kind>(kind),
                           pointer<const float>(upstream), upstream_stride, pointer<void>(grad), threads);
}

void forward_cuda(uintptr_t data, int dtype, int64_t rows, int64_t columns, int64_t row_stride, int kind,
                  uintptr_t out, uintptr_t stream) {
  check(uncertainty_forward_cuda(logits_of(data, dtype, rows, columns, row_stride), static_cast<Kind>(kind),
                                 pointer<float>(out), pointer<void>(stream)),
        "uncertainty_forward_cuda");
}

void backward_cuda(uintptr_t data, int dtype, int64_t rows, int64_t columns, int64_t row_stride, int kind,
                   uintptr_t upstream, int64_t upstream_stride, uintptr_t grad, uintptr_t stream) {
  check(uncertainty_backward_cuda(logits_of(data, dtype, rows, columns, row_stride), static_cast<Kind>(kind),
                                  pointer<const float>(upstream), upstream_stride, pointer<void>(grad),
                                  pointer<void>(stream)),
        "uncertainty_backward_cuda");
}

}  // namespace
}  // namespace sal_fast

PYBIND11_MODULE(_C, m) {
  using namespace sal_fast;
  const auto unlocked = py::call_guard<py::gil_scoped_release>();
  m.doc() = "The native core of sal_fast. Not public: use sal_fast.ops.";

  m.attr("version") = SAL_FAST_VERSION;
  m.attr("compiler") = SAL_FAST_COMPILER;
  m.attr("cuda_status") = cuda_status();
  m.attr("cuda_toolkit") = SAL_FAST_CUDA_TOOLKIT;
  m.attr("cuda_architectures") = SAL_FAST_CUDA_ARCHITECTURES;
  m.def("cpu_capability", &cpu_capability_name);

  m.def("uncertainty_forward_cpu", &forward_cpu, unlocked);
  m.def("uncertainty_backward_cpu", &backward_cpu, unlocked);
  m.def("uncertainty_forward_cuda", &forward_cuda, unlocked);
  m.def("uncertainty_backward_cuda", &backward_cuda, unlocked);
}
