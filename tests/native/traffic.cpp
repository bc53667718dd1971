// Counts what kernels read and write in global memory. Sources compiled with -fsanitize=thread call the functions below
// at each access; in place of ThreadSanitizer this file is linked. It prints a line for each call and for each launch:
//
//   call
//   KERNEL read READ_BYTES written WRITTEN_BYTES wide WIDE_BYTES sectors SECTORS loads LOADS
//
// Lanes of a warp that come by the same instruction for the same time make one access: bytes that several of them name
// count once in it, and again in the next. WIDE_BYTES are those of lanes that moved 16 bytes. SECTORS are the pieces of
// 32 bytes, aligned, that an access touches. LOADS are values that lanes asked for, whether their neighbours did or
// not.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <map>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

namespace {

constexpr int kSector = 32, kWide = 16, kWarp = 32;

std::map<uintptr_t, uintptr_t> watched;  // begin -> end

bool is_global(uintptr_t address) {
  auto after = watched.upper_bound(address);
  return after != watched.begin() && address < std::prev(after)->second;
}

struct Access {
  bool written;
  int bytes;  // of a lane
  std::vector<uintptr_t> addresses;
};

using Instruction = std::tuple<uintptr_t, size_t, unsigned>;  // where, which warp, for which time
std::map<Instruction, Access> accesses;                       // of the block
std::unordered_map<uint64_t, unsigned> times;                 // that a thread of the block came by an instruction

struct Totals {
  int64_t read, written, wide, sectors, loads;
  size_t every;
};
Totals totals;
const char* kernel;

void count(uintptr_t address, int bytes, bool written, void* where) {
  if (!is_global(address)) return;
  const size_t thread = emulator::index_in_block();
  const unsigned time = times[uint64_t(uintptr_t(where)) << 11 | thread]++;
  Access& access = accesses[{uintptr_t(where), thread / kWarp, time}];
  access.written = written;
  access.bytes = bytes;
  access.addresses.push_back(address);
  totals.loads += !written;
}

// Bytes in pieces of `piece` that begin at multiples of it, each of them once.
int64_t covered(std::vector<uintptr_t>& addresses, int bytes, uintptr_t piece) {
  int64_t sum = 0;
  uintptr_t done = 0;
  for (const uintptr_t address : addresses) {  // in ascending order
    const uintptr_t begin = std::max(done, address / piece * piece);
    const uintptr_t end = (address + bytes + piece - 1) / piece * piece;
    if (end > begin) sum += int64_t(end - begin);
    done = std::max(done, end);
  }
  return sum;
}

}  // namespace

extern "C" {

void traffic_watch(const void* memory, size_t bytes) {
  if (bytes != 0) watched[uintptr_t(memory)] = uintptr_t(memory) + bytes;
}

void traffic_forget(const void* memory) {  // the start of the allocation, in which a buffer may begin later
  const auto found = watched.lower_bound(uintptr_t(memory));
  if (found != watched.end() && found->first < uintptr_t(memory) + 64) watched.erase(found);
}

void traffic_call() { puts("call"); }

void traffic_launch(const char* name, size_t every) {
  kernel = name;
  totals = {};
  totals.every = every;
}

void traffic_end_block() {
  for (auto& [instruction, access] : accesses) {
    std::sort(access.addresses.begin(), access.addresses.end());
    const int64_t moved = covered(access.addresses, access.bytes, 1);
    (access.written ? totals.written : totals.read) += moved;
    if (access.bytes == kWide) totals.wide += moved;
    totals.sectors += covered(access.addresses, access.bytes, kSector) / kSector;
  }
  accesses.clear();
  times.clear();
}

void traffic_end_launch() {
  const auto whole = [](int64_t counted) { return (long long)(counted * int64_t(totals.every)); };
  printf("%s read %lld written %lld wide %lld sectors %lld loads %lld\n", kernel, whole(totals.read),
         whole(totals.written), whole(totals.wide), whole(totals.sectors), whole(totals.loads));
}

#define DP_ACCESS(bytes)                                                                                           \
  void __tsan_read##bytes(void* at) { count(uintptr_t(at), bytes, false, __builtin_return_address(0)); }           \
  void __tsan_write##bytes(void* at) { count(uintptr_t(at), bytes, true, __builtin_return_address(0)); }           \
  void __tsan_unaligned_read##bytes(void* at) { count(uintptr_t(at), bytes, false, __builtin_return_address(0)); } \
  void __tsan_unaligned_write##bytes(void* at) { count(uintptr_t(at), bytes, true, __builtin_return_address(0)); }
DP_ACCESS(1)
DP_ACCESS(2)
DP_ACCESS(4)
DP_ACCESS(8)
DP_ACCESS(16)

void __tsan_read_range(void* at, size_t bytes) { count(uintptr_t(at), int(bytes), false, __builtin_return_address(0)); }
void __tsan_write_range(void* at, size_t bytes) { count(uintptr_t(at), int(bytes), true, __builtin_return_address(0)); }
uint64_t __tsan_atomic64_fetch_add(volatile uint64_t* at, uint64_t value, int order) {
  count(uintptr_t(at), 8, true, __builtin_return_address(0));
  return __atomic_fetch_add(at, value, __ATOMIC_RELAXED);
}
void __tsan_vptr_update(void*, void*) {}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
}
