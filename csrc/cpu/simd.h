// SIMD without -march: the compiler emits each marked function once per instruction set and the
// loader picks one. Loops keep kLanes independent accumulators, which is what lets it vectorise a
// reduction without -ffast-math.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define DP_CLONES __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#else
#define DP_CLONES
#endif

// What a marked function calls must become part of it, or it would be compiled for the oldest processor.
#define DP_INLINE inline __attribute__((always_inline))

namespace dp {
constexpr int kLanes = 16;
}
