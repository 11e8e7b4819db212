// The instruction set is chosen at run time, so that one wheel serves every machine of an architecture.
#pragma once

#include <cstdlib>
#include <cstring>

namespace sal_fast {

enum Capability { kGeneric, kAvx2, kAvx512 };
constexpr const char* kCapabilityNames[] = {"generic", "avx2", "avx512"};

// The best that this machine has, or less where SAL_FAST_CPU_CAPABILITY asks for less.
inline Capability cpu_capability() {
  Capability most = kGeneric;
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c")) {
    most = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                   __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")
               ? kAvx512
               : kAvx2;
  }
#endif
  const char* const wanted = std::getenv("SAL_FAST_CPU_CAPABILITY");
  for (int i = 0; wanted && i < most; ++i)
    if (std::strcmp(wanted, kCapabilityNames[i]) == 0) return static_cast<Capability>(i);
  return most;
}

}  // namespace sal_fast

// The function of that name for an instruction set, each of which defines one in its own namespace: see
// CMakeLists.txt.
#if defined(__x86_64__)
#define SAL_FAST_DISPATCH(capability, function) \
  (capability == kAvx512 ? avx512::function : capability == kAvx2 ? avx2::function : generic::function)
#else
#define SAL_FAST_DISPATCH(capability, function) generic::function
#endif
