// The launchers: the functions of the native core that csrc/bindings calls.
//
// An op lists the arguments of its launcher once, in launch/<op>.h, as FIELD(type, name) lines. From that
// list SAL_FAST_LAUNCHER(<op>, <Op>Args, list) makes the struct, and declares
//
//   int <op>_cuda(const <Op>Args&, void* stream);   // 0, or the cudaError_t of a launch that failed
//   int64_t workspace_floats(const <Op>Args&);      // to be defined where a field is called `workspace`
//
// On the CPU each instruction set has a launcher in a namespace of its own, which csrc/bindings declares:
//
//   void <op>_cpu(const <Op>Args&, int threads);
//
// Python passes the fields by their names. Pointers are raw; sizes and strides count elements. A launcher
// works on the current device and the given stream. It never allocates on the device and never synchronises:
// what it needs beyond its outputs is the field `workspace`, a float* that the binding fills in.
#pragma once

#include <cstdint>

#define SAL_FAST_MEMBER(type, name) type name;
#define SAL_FAST_VISIT(type, name) visit(#name, name);

// A struct with these fields. for_each_field calls visit(name, field) for each of them, in their order.
#define SAL_FAST_STRUCT(Name, FIELDS)    \
  struct Name {                          \
    FIELDS(SAL_FAST_MEMBER)              \
    template <typename Visit>            \
    void for_each_field(Visit&& visit) { \
      FIELDS(SAL_FAST_VISIT)             \
    }                                    \
  };

#define SAL_FAST_LAUNCHER(op, Args, FIELDS)      \
  SAL_FAST_STRUCT(Args, FIELDS)                  \
  int op##_cuda(const Args& args, void* stream); \
  int64_t workspace_floats(const Args& args);

namespace sal_fast {

// The longest side of a CAM and of the map that it is enlarged to: int holds every product of two such sides.
constexpr int64_t kMostSide = 1 << 14;

enum class DType : int { float32, float16, bfloat16 };

// Storage of the half types. The arithmetic is in float.
struct Float16 {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

// "compiled", or the reason why there is no CUDA in this build.
const char* cuda_status();
const char* cuda_error_string(int error);
// Why this build's kernels cannot run on a device: its driver is too old, or the build has no code for it.
// Empty if they can.
const char* cuda_problem(int device);

}  // namespace sal_fast
