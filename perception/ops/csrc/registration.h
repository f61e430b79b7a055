// Where kernels register. Their schemas stand in the operators' modules (perception/ops/registration.py).
//
// The CUDA sources can also be compiled for the host (PERCEPTION_EMULATE_CUDA, see cuda/platform.h): the tests then run
// every CUDA kernel on a CPU, under a namespace of its own.
#pragma once

#include <torch/library.h>

#ifdef PERCEPTION_EMULATE_CUDA
#define PERCEPTION_CUDA_KERNELS(m) TORCH_LIBRARY_IMPL(perception_emulated, CPU, m)
#else
#define PERCEPTION_CUDA_KERNELS(m) TORCH_LIBRARY_IMPL(perception, CUDA, m)
#endif
#define PERCEPTION_CPU_KERNELS(m) TORCH_LIBRARY_IMPL(perception, CPU, m)
