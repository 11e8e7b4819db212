#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cuda_runtime.h"
#include "memory.h"

dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulation {

unsigned seed = 0;
unsigned most_blocks = ~0u;

namespace {

constexpr size_t kStack = 128 * 1024;
constexpr const char* kBlockBarrier = "__syncthreads";
constexpr const char* kWarpBarrier = "__syncwarp";

// The values that the lanes of a warp brought to a meeting.
struct Meeting {
  uint64_t value[32];
  int lane;  // of the fiber that asks
};

enum class State { ready, waiting, done };

struct Fiber {
  std::unique_ptr<char[]> stack{new char[kStack]};
  ucontext_t context;
  State state;
  dim3 thread;
  int index;
  // What it waits for.
  const char* operation;
  int line;
  unsigned mask;
  uint64_t value;
  Meeting meeting;

  bool waits_with(const Fiber& other) const {
    return state == State::waiting && operation == other.operation && line == other.line &&
           mask == other.mask;
  }
};

ucontext_t scheduler;
std::vector<Fiber> fibers;
Fiber* running;
const char* kernel_name;
void (*thread_body)(void*);
void* thread_arguments;

[[noreturn]] void fail(const Fiber& fiber, const char* what) {
  std::fprintf(stderr, "emulation: %s block (%u,%u,%u) thread (%u,%u,%u): %s\n", kernel_name, blockIdx.x,
               blockIdx.y, blockIdx.z, fiber.thread.x, fiber.thread.y, fiber.thread.z, what);
  std::fflush(stderr);
  _exit(3);
}

void leave_fiber() {
  swapcontext(&running->context, &scheduler);
}

void fiber_main() {
  thread_body(thread_arguments);
  running->state = State::done;
  leave_fiber();
}

void enter_fiber(Fiber& fiber) {
  running = &fiber;
  threadIdx = fiber.thread;
  begin_thread(fiber.index, fiber.stack.get(), kStack);
  swapcontext(&scheduler, &fiber.context);
  end_thread();
}

void wait_at(const char* operation, unsigned mask, uint64_t value, int line) {
  running->operation = operation;
  running->mask = mask;
  running->value = value;
  running->line = line;
  running->state = State::waiting;
  leave_fiber();
}

bool release_block() {
  for (const Fiber& fiber : fibers)
    if (!fiber.waits_with(fibers[0]) || fiber.operation != kBlockBarrier) return false;
  for (Fiber& fiber : fibers) fiber.state = State::ready;
  passed_block_barrier();
  return true;
}

// Lets go the lanes that wait for each other, if all of them are there.
void release_lanes(const Fiber& fiber) {
  if (fiber.state != State::waiting || fiber.operation == kBlockBarrier) return;
  const int first = fiber.index / 32 * 32;
  const int count = std::min<int>(32, static_cast<int>(fibers.size()) - first);
  Meeting meeting;
  std::memset(&meeting, 0xff, sizeof meeting);
  for (int lane = 0; lane < count; ++lane) {
    if (!(fiber.mask >> lane & 1u)) continue;
    if (!fibers[first + lane].waits_with(fiber)) return;
    meeting.value[lane] = fibers[first + lane].value;
  }
  // A barrier of some lanes orders those alone. We do not follow that: it then orders nothing.
  const bool whole_warp = (~fiber.mask & (count < 32 ? (1u << count) - 1 : ~0u)) == 0;
  if (fiber.operation == kWarpBarrier && whole_warp) passed_warp_barrier(first / 32);
  for (int lane = 0; lane < count; ++lane) {
    if (!(fiber.mask >> lane & 1u)) continue;
    Fiber& member = fibers[first + lane];
    member.meeting = meeting;
    member.meeting.lane = lane;
    member.state = State::ready;
  }
}

[[noreturn]] void report_divergence() {
  const auto waits = [](const Fiber& fiber) { return fiber.state == State::waiting; };
  const Fiber& stuck = *std::find_if(fibers.begin(), fibers.end(), waits);
  for (const Fiber& other : fibers) {
    if (other.waits_with(stuck)) continue;
    char what[256];
    if (other.state == State::done) {
      std::snprintf(what, sizeof what, "divergent %s at line %d: thread (%u,%u,%u) has exited",
                    stuck.operation, stuck.line, other.thread.x, other.thread.y, other.thread.z);
    } else {
      std::snprintf(what, sizeof what, "divergent %s at line %d: thread (%u,%u,%u) waits at %s, line %d",
                    stuck.operation, stuck.line, other.thread.x, other.thread.y, other.thread.z,
                    other.operation, other.line);
    }
    fail(stuck, what);
  }
  fail(stuck, "waits for lanes that the block does not have");
}

void run_block(std::mt19937& random) {
  begin_block((fibers.size() + 31) / 32);
  for (Fiber& fiber : fibers) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, fiber_main, 0);
    fiber.state = State::ready;
  }
  // A warp runs until it waits for the block before the next one starts: as far apart as barriers allow.
  std::vector<size_t> warps((fibers.size() + 31) / 32);
  std::iota(warps.begin(), warps.end(), 0);
  std::shuffle(warps.begin(), warps.end(), random);
  std::vector<Fiber*> ready;
  for (;;) {
    for (const size_t warp : warps) {
      ready.clear();
      for (size_t i = 32 * warp; i < std::min(32 * (warp + 1), fibers.size()); ++i) {
        release_lanes(fibers[i]);
        if (fibers[i].state == State::ready) ready.push_back(&fibers[i]);
      }
      if (!ready.empty()) break;
    }
    std::shuffle(ready.begin(), ready.end(), random);
    for (Fiber* fiber : ready) enter_fiber(*fiber);
    if (!ready.empty()) continue;
    if (release_block()) {
      std::shuffle(warps.begin(), warps.end(), random);
      continue;
    }
    if (std::all_of(fibers.begin(), fibers.end(), [](const Fiber& f) { return f.state == State::done; }))
      return;
    report_divergence();
  }
}

// Waits for every lane of `mask` at the same operation of the same source line.
const Meeting& meet(const char* operation, unsigned mask, uint64_t value, int line) {
  if (!(mask >> (running->index % 32) & 1u))
    fail(*running, "calls a warp operation with a mask it is not in");
  wait_at(operation, mask, value, line);
  return running->meeting;
}

}  // namespace

void fail(const char* what) {
  fail(*running, what);
}

uint64_t shuffle(const char* operation, unsigned mask, uint64_t mine, int source, int width, int line) {
  const Meeting& met = meet(operation, mask, mine, line);
  // The lane itself where the source lies outside its group of `width`.
  if (source < 0 || source / width != met.lane / width) source = met.lane;
  if (!(mask >> source & 1u)) {
    char what[96];
    std::snprintf(what, sizeof what, "%s at line %d reads lane %d, which the mask leaves out", operation,
                  line, source);
    fail(*running, what);
  }
  return met.value[source];
}

unsigned ballot(unsigned mask, bool predicate, int line) {
  const Meeting& met = meet("__ballot_sync", mask, predicate, line);
  unsigned votes = 0;
  for (int lane = 0; lane < 32; ++lane)
    if (mask >> lane & 1u) votes |= static_cast<unsigned>(met.value[lane] & 1) << lane;
  return votes;
}

void warp_barrier(unsigned mask, int line) {
  meet(kWarpBarrier, mask, 0, line);
}

int lane() {
  return running->index % 32;
}

void run_grid(const char* kernel, dim3 grid, dim3 block, void (*thread)(void*), void* arguments) {
  kernel_name = kernel;
  thread_body = thread;
  thread_arguments = arguments;
  grid.x = std::min(grid.x, most_blocks);
  gridDim = grid;
  blockDim = block;
  begin_launch();
  const int count = static_cast<int>(block.x * block.y * block.z);
  fibers.resize(count);
  for (int i = 0; i < count; ++i) {
    fibers[i].index = i;
    fibers[i].thread = dim3(i % block.x, i / block.x % block.y, i / (block.x * block.y));
  }
  std::mt19937 random(seed);
  std::vector<unsigned> blocks(size_t{grid.x} * grid.y * grid.z);
  std::iota(blocks.begin(), blocks.end(), 0u);
  std::shuffle(blocks.begin(), blocks.end(), random);
  for (const unsigned i : blocks) {
    blockIdx = dim3(i % grid.x, i / grid.x % grid.y, i / (grid.x * grid.y));
    run_block(random);
  }
}

}  // namespace emulation

void __syncthreads(int line) {
  emulation::wait_at(emulation::kBlockBarrier, 0xffffffffu, 0, line);
}

int __syncthreads_or(int predicate, int line) {
  static int votes = 0;
  votes |= predicate != 0;
  __syncthreads(line);
  const int result = votes;
  __syncthreads(line);
  votes = 0;
  __syncthreads(line);
  return result;
}
