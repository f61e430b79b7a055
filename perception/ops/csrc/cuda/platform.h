// CUDA, or (PERCEPTION_EMULATE_CUDA) a host that runs the same kernels: the threads of a block as loops, or as real
// threads where they meet at barriers. The emulation is for tests without a GPU; it knows only what the kernels use.
#pragma once

#include <ATen/Dispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "../inputs.h"
#include "../platform.h"
#include "../registration.h"

#ifndef PERCEPTION_EMULATE_CUDA

#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#define PERCEPTION_GUARD(tensor) const c10::cuda::CUDAGuard guard((tensor).device())
#define PERCEPTION_SHARED(type, name) \
  extern __shared__ __align__(16) unsigned char perception_shared[]; \
  type* name = reinterpret_cast<type*>(perception_shared)
// kernel<<<blocks, threads, bytes of shared memory>>>(...). Launches without blocks are left out: CUDA refuses them.
#define PERCEPTION_LAUNCH(kernel, blocks, threads, shared, ...) \
  do { \
    if ((blocks) > 0) { \
      kernel<<<(blocks), (threads), (shared), c10::cuda::getCurrentCUDAStream()>>>(__VA_ARGS__); \
      C10_CUDA_KERNEL_LAUNCH_CHECK(); \
    } \
  } while (false)
#define PERCEPTION_LAUNCH_TOGETHER PERCEPTION_LAUNCH

namespace perception {

template <typename T>
__device__ __forceinline__ void atomic_add(T* place, T value) {
  atomicAdd(place, value);
}

} // namespace perception

#else // PERCEPTION_EMULATE_CUDA

#include <atomic>
#include <barrier>
#include <thread>

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __launch_bounds__(...)
#define __ldg(pointer) (*(pointer))

namespace perception {
namespace emulation {

struct Index {
  unsigned x = 0;
};

inline thread_local Index threadIdx, blockIdx, blockDim, gridDim;
inline unsigned char* shared_memory = nullptr;
inline std::barrier<>* block_barrier = nullptr;
inline std::vector<std::barrier<>*> warp_barriers;
inline unsigned char exchange[1024][8];

inline void wait_for_warp() {
  warp_barriers[threadIdx.x / 32]->arrive_and_wait();
}

template <typename T, typename Source>
T shuffle(T value, const Source& source) {
  static_assert(sizeof(T) <= 8);
  const unsigned thread = threadIdx.x, first = thread / 32 * 32, size = std::min(32u, blockDim.x - first);
  std::memcpy(exchange[thread], &value, sizeof(T));
  wait_for_warp();
  const unsigned lane = source(thread % 32);
  T result = value;
  if (lane < size) {
    std::memcpy(&result, exchange[first + lane], sizeof(T));
  }
  wait_for_warp();
  return result;
}

template <typename Call>
void launch(int64_t blocks, int64_t threads, int64_t shared, bool together, const Call& call) {
  std::vector<unsigned char> memory(shared + 16);
  shared_memory = memory.data();
  for (int64_t block = 0; block < blocks; ++block) {
    const auto enter = [&](int64_t thread) {
      threadIdx.x = thread;
      blockIdx.x = block;
      blockDim.x = threads;
      gridDim.x = blocks;
      call();
    };
    if (!together) {
      for (int64_t thread = 0; thread < threads; ++thread) {
        enter(thread);
      }
      continue;
    }
    std::barrier<> barrier(threads);
    block_barrier = &barrier;
    warp_barriers.clear();
    for (int64_t first = 0; first < threads; first += 32) {
      warp_barriers.push_back(new std::barrier<>(std::min<int64_t>(32, threads - first)));
    }
    std::vector<std::thread> team;
    for (int64_t thread = 0; thread < threads; ++thread) {
      team.emplace_back(enter, thread);
    }
    for (auto& member : team) {
      member.join();
    }
    for (auto* warp : warp_barriers) {
      delete warp;
    }
  }
  shared_memory = nullptr;
}

} // namespace emulation

using emulation::blockDim;
using emulation::blockIdx;
using emulation::gridDim;
using emulation::threadIdx;

inline void __syncthreads() {
  emulation::block_barrier->arrive_and_wait();
}

inline void __syncwarp() {
  emulation::wait_for_warp();
}

template <typename T>
T __shfl_down_sync(unsigned, T value, unsigned by) {
  return emulation::shuffle(value, [&](unsigned lane) { return lane + by; });
}

template <typename T>
T __shfl_xor_sync(unsigned, T value, unsigned mask) {
  return emulation::shuffle(value, [&](unsigned lane) { return lane ^ mask; });
}

template <typename T>
T __shfl_sync(unsigned, T value, unsigned lane) {
  return emulation::shuffle(value, [&](unsigned) { return lane; });
}

inline unsigned __ballot_sync(unsigned, bool vote) {
  unsigned bits = 0;
  for (unsigned lane = 0; lane < 32; ++lane) {
    bits |= unsigned(__shfl_sync(0, int(vote), lane)) << lane;
  }
  return bits;
}

inline int __popc(unsigned bits) {
  return __builtin_popcount(bits);
}

template <typename T>
void atomic_add(T* place, T value) {
  std::atomic_ref<T>(*place).fetch_add(value);
}

} // namespace perception

#define PERCEPTION_GUARD(tensor)
#define PERCEPTION_SHARED(type, name) type* name = reinterpret_cast<type*>(emulation::shared_memory)
#define PERCEPTION_LAUNCH(kernel, blocks, threads, shared, ...) \
  emulation::launch((blocks), (threads), (shared), false, [&] { kernel(__VA_ARGS__); })
// For kernels in which threads wait for one another.
#define PERCEPTION_LAUNCH_TOGETHER(kernel, blocks, threads, shared, ...) \
  emulation::launch((blocks), (threads), (shared), true, [&] { kernel(__VA_ARGS__); })

#endif

namespace perception {


constexpr int kThreads = 256;
constexpr unsigned kWholeWarp = 0xffffffffu;

inline int64_t ceil_div(int64_t count, int64_t size) {
  return (count + size - 1) / size;
}

// Blocks of a one-dimensional launch over `count` items. Kernels stride over the grid, so that any count fits.
inline unsigned blocks_for(int64_t count, int64_t per_block = kThreads) {
  return static_cast<unsigned>(std::min<int64_t>(ceil_div(count, per_block), int64_t(1) << 30));
}

#define PERCEPTION_FOR(i, count) \
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < (count); i += int64_t(gridDim.x) * blockDim.x)

// Numbers are read as their own type and computed with in float32 (double stays double).
template <typename T>
struct Compute {
  using type = float;
};
template <>
struct Compute<double> {
  using type = double;
};

template <typename T>
__device__ __forceinline__ T warp_sum(T value) {
  for (int by = 16; by > 0; by /= 2) {
    value += __shfl_down_sync(kWholeWarp, value, by);
  }
  return value; // of all lanes, in lane 0
}

} // namespace perception
