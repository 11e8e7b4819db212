#include "memory.h"

#include <link.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <new>
#include <vector>

#include "cuda_runtime.h"

namespace emulation {
namespace {

constexpr int16_t kSeveral = -1;

// The last access to a byte, and those that no barrier parts from it: `warp` and `thread` are kSeveral where
// they differ. `barrier` and `warp_barrier` count what the block and the warp had passed.
struct Access {
  uint32_t block = 0;  // counted over all launches, from 1; 0: no access yet
  bool several_blocks = false;
  bool atomic = false;
  int16_t thread = 0, warp = 0;
  uint32_t barrier = 0, warp_barrier = 0;
  const void* code = nullptr;
};

struct Byte {
  Access read, write;
  bool written = false;
};

std::map<uintptr_t, std::vector<Byte>> buffers;  // by their first byte
std::vector<Byte> shared;
uintptr_t shared_begin, image_begin, image_end;
Access now;  // the thread that runs
bool in_thread = false;
uintptr_t stack_begin, stack_end;
uint32_t first_block_of_launch = 1;
std::vector<uint32_t> warp_barriers;

// The place in the program, for addr2line.
uintptr_t place(const void* code) {
  return reinterpret_cast<uintptr_t>(code) - image_begin;
}

// The thread-local block of the program holds nothing but its __shared__ variables.
void find_program() {
  dl_iterate_phdr(
      [](dl_phdr_info* program, size_t, void*) {
        image_begin = program->dlpi_addr;
        for (int i = 0; i < program->dlpi_phnum; ++i) {
          const auto& part = program->dlpi_phdr[i];
          if (part.p_type == PT_TLS) {
            shared_begin = reinterpret_cast<uintptr_t>(program->dlpi_tls_data);
            shared.resize(part.p_memsz);
          }
          if (part.p_type == PT_LOAD)
            image_end = std::max(image_end, image_begin + part.p_vaddr + part.p_memsz);
        }
        return 1;  // the program itself comes first
      },
      nullptr);
}

// Who made an access before, if no barrier parts it from this thread. Each block has its own shared memory.
const char* unordered(const Access& before, bool is_shared) {
  if (before.block < first_block_of_launch) return nullptr;
  if (before.block != now.block || before.several_blocks) return is_shared ? nullptr : "another block";
  if (before.barrier != now.barrier) return nullptr;
  if (before.warp != now.warp) return "another warp";
  if (before.warp_barrier != now.warp_barrier || before.thread == now.thread) return nullptr;
  return "another lane of its warp";
}

[[noreturn]] void report(const char* action, const char* memory, const char* why, const void* other) {
  char text[256];
  const int used = std::snprintf(text, sizeof text, "%s %s at [%#zx] %s", action, memory,
                                 static_cast<size_t>(place(now.code)), why);
  if (other)
    std::snprintf(text + used, sizeof text - used, " at [%#zx], and no barrier stands between them",
                  static_cast<size_t>(place(other)));
  fail(text);
}

// Notes an access, together with those that no barrier parts from it.
void note(Access& kept, bool is_shared) {
  Access merged = now;
  if (unordered(kept, is_shared)) {
    merged.several_blocks = kept.several_blocks || kept.block != now.block;
    if (kept.warp != now.warp) merged.warp = kSeveral;
    merged.thread = kSeveral;
  }
  kept = merged;
}

enum Kind { kRead, kWrite, kAtomic };
constexpr const char* kAction[] = {"reads", "writes", "changes"};

void check_race(const Access& before, Kind kind, bool is_shared, const char* verb) {
  const char* const who = unordered(before, is_shared);
  if (!who) return;
  char why[96];
  std::snprintf(why, sizeof why, "that %s %s", who, verb);
  report(kAction[kind], is_shared ? "shared memory" : "global memory", why, before.code);
}

template <Kind kind>
void touch(Byte& byte, bool is_shared) {
  const bool written = is_shared ? byte.write.block == now.block : byte.written;
  if (kind != kWrite && !written)
    report(kAction[kind], is_shared ? "shared memory" : "global memory", "that nobody wrote", nullptr);
  if (kind != kAtomic || !byte.write.atomic) check_race(byte.write, kind, is_shared, "wrote");
  if (kind == kRead) return note(byte.read, is_shared);
  check_race(byte.read, kind, is_shared, "reads");
  note(byte.write, is_shared);
  byte.write.atomic = kind == kAtomic;
  byte.written = true;
}

// The bytes of a buffer that lie there, or null if they do not all belong to one.
Byte* shadow_of(uintptr_t at, size_t bytes) {
  auto found = buffers.upper_bound(at);
  if (found == buffers.begin()) return nullptr;
  auto& [begin, shadow] = *--found;
  return at + bytes <= begin + shadow.size() ? &shadow[at - begin] : nullptr;
}

void initialise(const void* data, size_t bytes) {
  Byte* const shadow = shadow_of(reinterpret_cast<uintptr_t>(data), bytes);
  for (size_t i = 0; i < bytes; ++i) shadow[i].written = true;
}

template <Kind kind>
void access(const void* data, size_t bytes, const void* code) {
  if (!in_thread) return;
  const auto at = reinterpret_cast<uintptr_t>(data);
  if (at >= stack_begin && at + bytes <= stack_end) return;
  now.code = code;
  if (at >= shared_begin && at + bytes <= shared_begin + shared.size()) {
    for (size_t i = 0; i < bytes; ++i) touch<kind>(shared[at - shared_begin + i], true);
    return;
  }
  if (Byte* const shadow = shadow_of(at, bytes)) {
    for (size_t i = 0; i < bytes; ++i) touch<kind>(shadow[i], false);
    return;
  }
  if (kind == kRead && at >= image_begin && at + bytes <= image_end) return;  // a constant
  report(kAction[kind], "memory", "outside every buffer", nullptr);
}

}  // namespace

void begin_launch() {
  first_block_of_launch = now.block + 1;
}

void begin_block(size_t warps) {
  if (!image_end) find_program();
  ++now.block;
  now.barrier = 0;
  warp_barriers.assign(warps, 0);
}

void passed_block_barrier() {
  ++now.barrier;
}

void passed_warp_barrier(int warp) {
  ++warp_barriers[warp];
}

void begin_thread(int thread, const void* stack, size_t bytes) {
  now.thread = static_cast<int16_t>(thread);
  now.warp = static_cast<int16_t>(thread / 32);
  now.warp_barrier = warp_barriers[now.warp];
  stack_begin = reinterpret_cast<uintptr_t>(stack);
  stack_end = stack_begin + bytes;
  in_thread = true;
}

void end_thread() {
  in_thread = false;
}

void changes_atomically(const void* data, size_t bytes, const void* code) {
  access<kAtomic>(data, bytes, code);
}

}  // namespace emulation

namespace {

constexpr std::align_val_t kAligned{256};
constexpr size_t kAround = 4096;  // bytes on each side that are nobody's

}  // namespace

cudaError_t cudaMalloc(void** data, size_t bytes) {
  char* const start = static_cast<char*>(operator new(bytes + 2 * kAround, kAligned)) + kAround;
  emulation::buffers[reinterpret_cast<uintptr_t>(start)].resize(bytes);
  *data = start;
  return cudaSuccess;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  std::memcpy(to, from, bytes);
  if (kind == cudaMemcpyHostToDevice) emulation::initialise(to, bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* data) {
  emulation::buffers.erase(reinterpret_cast<uintptr_t>(data));
  operator delete(static_cast<char*>(data) - kAround, kAligned);
  return cudaSuccess;
}

// What the compiler calls.
extern "C" {
#define SAL_FAST_HOOKS(bytes)                                                    \
  void __tsan_read##bytes(void* p) {                                             \
    emulation::access<emulation::kRead>(p, bytes, __builtin_return_address(0));  \
  }                                                                              \
  void __tsan_write##bytes(void* p) {                                            \
    emulation::access<emulation::kWrite>(p, bytes, __builtin_return_address(0)); \
  }
SAL_FAST_HOOKS(1)
SAL_FAST_HOOKS(2)
SAL_FAST_HOOKS(4)
SAL_FAST_HOOKS(8)
SAL_FAST_HOOKS(16)
void __tsan_read_range(void* p, size_t bytes) {
  emulation::access<emulation::kRead>(p, bytes, __builtin_return_address(0));
}
void __tsan_write_range(void* p, size_t bytes) {
  emulation::access<emulation::kWrite>(p, bytes, __builtin_return_address(0));
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
