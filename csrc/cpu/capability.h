// The instruction set chosen at run time, so that one wheel serves every machine of an architecture.
#pragma once

namespace sal_fast {

enum class Capability { generic, avx2, avx512 };

// The best that this machine has, or less where SAL_FAST_CPU_CAPABILITY asks for less. Chosen once.
Capability cpu_capability();
const char* cpu_capability_name();

}  // namespace sal_fast

// The function of that name that this machine runs. Every instruction set defines one in its own namespace:
// see CMakeLists.txt.
#if defined(__x86_64__)
#define SAL_FAST_DISPATCH(function)                          \
  (cpu_capability() == Capability::avx512 ? avx512::function \
   : cpu_capability() == Capability::avx2 ? avx2::function   \
                                          : generic::function)
#else
#define SAL_FAST_DISPATCH(function) (generic::function)
#endif
