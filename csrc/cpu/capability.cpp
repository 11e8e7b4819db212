#include "capability.h"

#include <cstdlib>
#include <cstring>

namespace sal_fast {
namespace {

constexpr const char* kNames[] = {"generic", "avx2", "avx512"};

Capability best() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2 && avx512) return Capability::avx512;
  if (avx2) return Capability::avx2;
#endif
  return Capability::generic;
}

Capability choose() {
  const Capability most = best();
  const char* wanted = std::getenv("SAL_FAST_CPU_CAPABILITY");
  for (int i = 0; wanted && i < static_cast<int>(most); ++i)
    if (std::strcmp(wanted, kNames[i]) == 0) return static_cast<Capability>(i);
  return most;
}

}  // namespace

Capability cpu_capability() {
  static const Capability chosen = choose();
  return chosen;
}

const char* cpu_capability_name() {
  return kNames[static_cast<int>(cpu_capability())];
}

}  // namespace sal_fast
