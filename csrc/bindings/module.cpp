// sal_fast._C: <op>_cpu(*fields, threads) and <op>_cuda(*fields, stream) for every launcher, pointers and
// enums as integers. sal_fast.ops checks, allocates and keeps tensors alive.
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "capability.h"
#include "launchers.h"

namespace pybind11::detail {

template <>
struct type_caster<sal_fast::Address> : type_caster<uintptr_t> {
  template <typename>
  using cast_op_type = sal_fast::Address;
  operator sal_fast::Address() { return {value}; }
};

template <>
struct type_caster<sal_fast::Code> : type_caster<int> {
  template <typename>
  using cast_op_type = sal_fast::Code;
  operator sal_fast::Code() { return {value}; }
};

}  // namespace pybind11::detail

namespace sal_fast {
namespace {

template <typename Args, typename... Fields>
void bind(pybind11::module_& m, const std::string& name, void (*cpu)(const Args&, int),
          int (*cuda)(const Args&, void*), Signature<Fields...>) {
  const auto unlocked = pybind11::call_guard<pybind11::gil_scoped_release>();
  m.def((name + "_cpu").c_str(), [cpu](Fields... fields, int threads) { cpu(Args{fields...}, threads); },
        unlocked);
  m.def((name + "_cuda").c_str(),
        [cuda, name](Fields... fields, Address stream) {
          const int error = cuda(Args{fields...}, stream);
          if (error != 0) throw std::runtime_error(name + ": " + cuda_error_string(error));
        },
        unlocked);
}

// Floats of workspace on the device, of the launchers that need any.
int64_t workspace_of(const SsimArgs& args) {
  return ssim_workspace(args);
}
int64_t workspace_of(const SaliencyLossArgs& args) {
  return saliency_loss_workspace(args);
}
template <typename Args>
int64_t workspace_of(const Args&) {
  return 0;
}

template <typename Args, typename... Fields>
void bind_workspace(pybind11::module_& m, const std::string& name, Signature<Fields...>) {
  m.def((name + "_workspace").c_str(), [](Fields... fields) { return workspace_of(Args{fields...}); });
}

}  // namespace
}  // namespace sal_fast

PYBIND11_MODULE(_C, m) {
  using namespace sal_fast;
  m.doc() = "The native core of sal_fast. Not public: use sal_fast.ops.";

  m.attr("version") = SAL_FAST_VERSION;
  m.attr("compiler") = SAL_FAST_COMPILER;
  m.attr("cuda_status") = cuda_status();
  m.attr("cuda_toolkit") = SAL_FAST_CUDA_TOOLKIT;
  m.attr("cuda_architectures") = SAL_FAST_CUDA_ARCHITECTURES;
  m.def("cpu_capability", &cpu_capability_name);

#define SAL_FAST_BIND(name, Args, ...)                               \
  bind(m, #name, name##_cpu, name##_cuda, Signature<__VA_ARGS__>{}); \
  bind_workspace<Args>(m, #name, Signature<__VA_ARGS__>{});
  SAL_FAST_LAUNCHERS(SAL_FAST_BIND)
}
