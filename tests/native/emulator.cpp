// Runs a kernel one block after the other, with a fiber for each thread of the block.
//
// A warp runs until all of its threads wait for another warp or have finished, so that warps drift apart as far as
// barriers let them; between two collective calls its lanes run one after the other. Where a barrier is missing, a
// thread reads too early in at least one of the orders. Shared memory starts out as NaN.
//
// This file is compiled without sanitizers and serves sanitized programs too. ThreadSanitizer takes fibers for
// threads, and only barriers order their accesses: it reports two threads that touch the same memory without one,
// whatever the order in which they ran.
#include <link.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#include "cuda_runtime.h"

extern "C" {  // null where ThreadSanitizer is not linked
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_acquire(void* address);
[[gnu::weak]] void __tsan_release(void* address);
[[gnu::weak]] void __tsan_java_init(uintptr_t heap, uintptr_t bytes);
[[gnu::weak]] void __tsan_java_alloc(uintptr_t address, uintptr_t bytes);
}

extern "C" {  // null where traffic.cpp is not linked
[[gnu::weak]] void traffic_launch(const char* kernel, size_t every);
[[gnu::weak]] void traffic_end_block();
[[gnu::weak]] void traffic_end_launch();
}

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulator {

Device device;

size_t index_in_block() { return (size_t(threadIdx.z) * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x; }

namespace {

constexpr int kWarp = 32;
constexpr size_t kMaxThreads = 1024, kStackBytes = 64 * 1024;
constexpr int kGarbage = 0xff;  // in each byte: NaN, and -1
constexpr unsigned kNoSync = 1;

void acquire(void* address) {
  if (__tsan_acquire) __tsan_acquire(address);
}
void release(void* address) {
  if (__tsan_release) __tsan_release(address);
}

struct Barrier {
  size_t arrived = 0;
  int line = 0;
  unsigned generation = 0;
  char memory_order[2];  // what threads release and acquire, in even and in odd generations
};

struct Warp {
  Barrier barrier;
  uint64_t values[2][kWarp];  // in even and in odd generations: a lane may post its next before all have read the last
};

struct Block {
  Barrier barrier;
  bool any[2];
  Warp warps[kMaxThreads / kWarp];
};

// Where a fiber goes on. Jumps cost a hundredth of swapcontext(), which asks the system for the mask of signals each
// time; the built-in ones are unknown to sanitizers, which are told of fibers in their own words.
using Place = void* [5];

struct Fiber {
  Place place;
  ucontext_t context;  // only to begin with
  bool begun;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  void* const tsan = __tsan_create_fiber ? __tsan_create_fiber(0) : nullptr;
  uint3 thread;
  const Barrier* waits_at;  // null: runs
  unsigned generation;      // of the barrier when the wait began
  bool finished;

  bool can_run() const { return !finished && (waits_at == nullptr || waits_at->generation != generation); }
};

// Two sets for blocks in turn, so that ThreadSanitizer takes the threads of neighbouring blocks for different ones.
std::vector<std::unique_ptr<Fiber>> fibers, idle_fibers;
Place scheduler;
void* tsan_scheduler;
char block_start, launch_end;  // what threads acquire and release

size_t threads;  // in a block
Block block;
Fiber* running;
const std::function<void()>* body;
std::vector<std::unique_ptr<void, decltype(&std::free)>> dynamic;  // shared memory of the launch's blocks so far

[[noreturn]] void fail(int line, const char* what, int number) {
  fprintf(stderr, "emulator: block (%u, %u, %u), line %d: %s %d\n", blockIdx.x, blockIdx.y, blockIdx.z, line, what,
          number);
  std::_Exit(1);
}

[[noreturn, gnu::noinline]] void go_to(Place& place) { __builtin_longjmp(place, 1); }

[[gnu::noinline]] void leave() {
  if (tsan_scheduler) __tsan_switch_to_fiber(tsan_scheduler, kNoSync);
  if (__builtin_setjmp(running->place) == 0) go_to(scheduler);
}

[[gnu::noinline]] void enter(Fiber& fiber) {
  running = &fiber;
  threadIdx = fiber.thread;
  fiber.waits_at = nullptr;
  if (fiber.tsan) __tsan_switch_to_fiber(fiber.tsan, kNoSync);
  if (__builtin_setjmp(scheduler) != 0) return;
  if (running->begun) go_to(running->place);
  running->begun = true;
  setcontext(&running->context);
}

void run_thread() {
  acquire(&block_start);
  (*body)();
  release(&launch_end);
  running->finished = true;
  leave();
}

enum class Memory { kOrdered, kUnordered };

// Waits until `expected` threads are at the barrier.
void wait(Barrier& barrier, size_t expected, int line, Memory memory) {
  if (barrier.arrived != 0 && barrier.line != line) fail(line, "another thread waits in line", barrier.line);
  const unsigned generation = barrier.generation;
  char* const order = &barrier.memory_order[generation % 2];
  if (memory == Memory::kOrdered) release(order);
  barrier.line = line;
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    ++barrier.generation;
  } else {
    running->waits_at = &barrier;
    running->generation = generation;
    leave();
  }
  if (memory == Memory::kOrdered) acquire(order);
}

Warp& own_warp(unsigned mask, int line) {
  if (mask != 0xffffffffu) fail(line, "only whole warps are emulated, not the mask", int(mask));
  return block.warps[index_in_block() / kWarp];
}

// The values of all lanes.
const uint64_t* exchange(uint64_t value, unsigned mask, int line) {
  Warp& warp = own_warp(mask, line);
  uint64_t* const values = warp.values[warp.barrier.generation % 2];
  values[lane()] = value;
  wait(warp.barrier, kWarp, line, Memory::kUnordered);
  return values;
}

std::vector<size_t> turns(size_t n, std::mt19937& random) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  if (device.order == Order::kReverse) std::reverse(order.begin(), order.end());
  if (device.order == Order::kShuffled) std::shuffle(order.begin(), order.end(), random);
  return order;
}

// The program's thread-local segment holds the `__shared__` arrays (see cuda_runtime.h).
int clear_static_shared(dl_phdr_info* program, size_t, void*) {
  for (int i = 0; i < program->dlpi_phnum; ++i) {
    const auto& segment = program->dlpi_phdr[i];
    if (segment.p_type != PT_TLS) continue;
    const auto begin = uintptr_t(program->dlpi_tls_data), first_word = (begin + 7) / 8 * 8;
    if (__tsan_java_alloc) {  // as if newly allocated: forgets the accesses of other blocks
      const uintptr_t bytes = (begin + segment.p_memsz - first_word) / 8 * 8;
      static const bool once = (__tsan_java_init(first_word, bytes), true);
      static_cast<void>(once);
      __tsan_java_alloc(first_word, bytes);
    }
    memset(program->dlpi_tls_data, kGarbage, segment.p_memsz);
  }
  return 1;  // looks at no other module than the first, which is the program
}

void start_threads() {
  std::swap(fibers, idle_fibers);
  while (fibers.size() < threads) fibers.push_back(std::make_unique<Fiber>());
  for (size_t i = 0; i < threads; ++i) {
    Fiber& fiber = *fibers[i];
    const unsigned row = unsigned(i / blockDim.x);
    fiber.thread = {unsigned(i % blockDim.x), row % blockDim.y, row / blockDim.y};
    fiber.waits_at = nullptr;
    fiber.finished = fiber.begun = false;
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    makecontext(&fiber.context, run_thread, 0);
  }
  release(&block_start);
}

// One turn for each lane that can run. Returns whether there was one.
bool run_warp(size_t warp, const std::vector<size_t>& lanes) {
  bool any = false;
  for (const size_t lane : lanes) {
    const size_t i = warp * kWarp + lane;
    if (i >= threads || !fibers[i]->can_run()) continue;
    enter(*fibers[i]);
    any = true;
  }
  return any;
}

void run_block(size_t shared_bytes, std::mt19937& random) {
  block = Block();
  dl_iterate_phdr(clear_static_shared, nullptr);
  void* memory = nullptr;
  if (posix_memalign(&memory, 16, shared_bytes) != 0) std::abort();
  memset(memory, kGarbage, shared_bytes);
  dynamic.emplace_back(memory, std::free);
  start_threads();

  const auto warps = turns((threads + kWarp - 1) / kWarp, random), lanes = turns(kWarp, random);
  for (bool any = true; any;) {
    any = false;
    for (const size_t warp : warps) {
      while (run_warp(warp, lanes)) any = true;
    }
  }
  int finished = 0, line = 0;
  for (size_t i = 0; i < threads; ++i) {
    finished += fibers[i]->finished;
    if (!fibers[i]->finished) line = fibers[i]->waits_at->line;
  }
  if (size_t(finished) != threads) fail(line, "deadlock; threads that have left the kernel:", finished);
}

}  // namespace

void launch(const char* kernel, dim3 grid, dim3 block_size, size_t shared_bytes, const std::function<void()>& thread) {
  threads = size_t(block_size.x) * block_size.y * block_size.z;
  const size_t blocks = size_t(grid.x) * grid.y * grid.z;
  if (blocks == 0 || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || threads == 0 ||
      threads > kMaxThreads) {
    device.last_error = cudaErrorInvalidConfiguration;
    return;
  }
  if (shared_bytes > size_t(device.shared_limit)) {
    device.last_error = cudaErrorInvalidValue;
    return;
  }
  if (__tsan_get_current_fiber) tsan_scheduler = __tsan_get_current_fiber();
  const size_t every = blocks > 4096 ? size_t(device.every) : 1;
  if (traffic_launch) traffic_launch(kernel, every);
  body = &thread;
  gridDim = grid;
  blockDim = block_size;
  std::mt19937 random(1);
  for (const size_t i : turns(blocks, random)) {
    if (i % every != 0) continue;
    const unsigned row = unsigned(i / grid.x);
    blockIdx = {unsigned(i % grid.x), row % grid.y, row / grid.y};
    run_block(shared_bytes, random);
    if (traffic_end_block) traffic_end_block();
  }
  if (traffic_end_launch) traffic_end_launch();
  acquire(&launch_end);
  dynamic.clear();
}

void* dynamic_shared() { return dynamic.back().get(); }

int lane() { return int(index_in_block() % kWarp); }

void sync_block(int line) { wait(block.barrier, threads, line, Memory::kOrdered); }

bool any_in_block(bool value, int line) {
  bool& any = block.any[block.barrier.generation % 2];
  any = value || (any && block.barrier.arrived != 0);
  sync_block(line);
  return any;
}

void sync_warp(unsigned mask, int line) { wait(own_warp(mask, line).barrier, kWarp, line, Memory::kOrdered); }

uint64_t shuffle(uint64_t value, int source_lane, unsigned mask, int line) {
  return exchange(value, mask, line)[source_lane];
}

unsigned ballot(bool value, unsigned mask, int line) {
  const uint64_t* values = exchange(value, mask, line);
  unsigned votes = 0;
  for (int lane = 0; lane < kWarp; ++lane) votes |= unsigned(values[lane]) << lane;
  return votes;
}

}  // namespace emulator
