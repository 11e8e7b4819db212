// What every .cu file needs. tests/emulation defines SAL_FAST_LAUNCH itself, to run the same source on the
// host.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#ifndef SAL_FAST_LAUNCH
#define SAL_FAST_LAUNCH(kernel, grid, block, stream, ...) \
  kernel<<<grid, block, 0, static_cast<cudaStream_t>(stream)>>>(__VA_ARGS__)
#endif
