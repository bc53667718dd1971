// Lets the same formula compile for the host and for the device.
#pragma once

#ifdef __CUDACC__
#define DP_HD __host__ __device__ __forceinline__
#else
#define DP_HD inline __attribute__((always_inline))
#endif
