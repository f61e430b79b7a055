// What the CPU kernels share.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <tuple>
#include <vector>

#include "../inputs.h"
#include "../platform.h"
#include "../registration.h"

namespace perception {


constexpr int64_t kTaskSize = 1 << 15; // elementary operations below which another thread does not pay

inline int64_t grain(int64_t operations_per_item) {
  return std::max<int64_t>(1, kTaskSize / std::max<int64_t>(1, operations_per_item));
}

// sum[i] += factor * values[i]
template <typename T>
inline void add_scaled(T* __restrict__ sum, const T* __restrict__ values, T factor, int64_t count) {
#pragma omp simd
  for (int64_t i = 0; i < count; ++i) {
    sum[i] = multiply_add(factor, values[i], sum[i]);
  }
}

template <typename T>
inline T dot(const T* __restrict__ a, const T* __restrict__ b, int64_t count) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < count; ++i) {
    sum += a[i] * b[i];
  }
  return sum;
}

} // namespace perception
