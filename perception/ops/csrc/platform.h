// Functions written once for the host and the device.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define PERCEPTION_HD __host__ __device__ __forceinline__
#else
#define PERCEPTION_HD inline
#endif

namespace perception {

// a * b + c in one rounding where the processor can, so that compilers may vectorise it without reordering anything else.
template <typename T>
PERCEPTION_HD T multiply_add(T a, T b, T c) {
#if defined(__CUDACC__) || defined(__FMA__)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

template <typename T>
PERCEPTION_HD T least(T a, T b) {
  return b < a ? b : a;
}

template <typename T>
PERCEPTION_HD T greatest(T a, T b) {
  return a < b ? b : a;
}

// The sum of squares in the order x, y, z with every product rounded: ties between points fall as in the reference.
template <typename T>
PERCEPTION_HD T squared_distance(T x, T y, T z) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 4) {
    return __fadd_rn(__fadd_rn(__fmul_rn(x, x), __fmul_rn(y, y)), __fmul_rn(z, z));
  } else {
    return __dadd_rn(__dadd_rn(__dmul_rn(x, x), __dmul_rn(y, y)), __dmul_rn(z, z));
  }
#else
  return (x * x + y * y) + z * z;
#endif
}

} // namespace perception
