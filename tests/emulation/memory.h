// What the emulation knows of each byte that a kernel may touch, and what it refuses.
//
// The sources are compiled with -fsanitize=thread, which calls a function __tsan_read<n> or __tsan_write<n>
// before each access; memory.cpp defines these functions itself. It ends the program with a report for
//   * an access outside what cudaMalloc gave, shared memory and the thread's own stack;
//   * a read of what nobody wrote: no thread of the block into shared memory, no kernel and no cudaMemcpy
//     into the rest;
//   * a race: two threads touch a byte, one of them writes, and no barrier that both reach stands between
//     them. __syncthreads orders the threads of a block, and __syncwarp over all lanes those of a warp.
//     Nothing orders two blocks of one launch. Two atomic operations are no race.
#pragma once

#include <cstddef>

namespace emulation {

void begin_launch();
void begin_block(size_t warps);
void passed_block_barrier();
void passed_warp_barrier(int warp);

// The thread whose accesses follow; the stack is its own. No thread: the host, whose accesses are free.
void begin_thread(int thread, const void* stack, size_t bytes);
void end_thread();

// Ends the program with a report of the thread that runs.
[[noreturn]] void fail(const char* what);

}  // namespace emulation
