#include "platform.h"

namespace perception {
namespace {

constexpr int kPixels = 128; // output pixels of a block, which lie side by side in memory
constexpr int64_t kSharedBytes = 48 * 1024; // what a block may use without asking for more
constexpr int64_t kChannels = 32; // channels that share one load of the weights

// A block takes 128 output pixels of one group; their weights are read once into shared memory, then every channel of a
// chunk is summed by them. (Without kShared, for windows that do not fit, every channel reads them again.) Bound: features and results once, weights C / (32 G) times; window pixels come from cache.
template <typename T, typename C, bool kShared>
__global__ void forward_kernel(
    const T* __restrict__ features,
    const T* __restrict__ masks,
    ReassemblyShape s,
    int64_t tiles,
    int64_t chunks,
    T* __restrict__ output) {
  PERCEPTION_SHARED(C, weights); // (taps, kPixels)
  const int64_t pixels = s.out_height() * s.out_width(), per_group = s.per_group();
  const int64_t tile = blockIdx.x % tiles, chunk = blockIdx.x / tiles % chunks,
                group = blockIdx.x / (tiles * chunks) % s.groups, image = blockIdx.x / (tiles * chunks * s.groups);
  const int64_t pixel = tile * kPixels + threadIdx.x;
  if (pixel >= pixels) {
    return;
  }
  const T* mask = masks + (image * s.groups + group) * s.taps() * pixels + pixel;
  for (int64_t tap = 0; kShared && tap < s.taps(); ++tap) {
    weights[tap * kPixels + threadIdx.x] = C(mask[tap * pixels]); // read back by this thread alone
  }
  const int64_t y = pixel / s.out_width() / s.scale, x = pixel % s.out_width() / s.scale, reach = s.kernel / 2;
  const int64_t first = group * per_group + chunk * kChannels;
  const int64_t last = least(first + kChannels, (group + 1) * per_group);
  for (int64_t channel = first; channel < last; ++channel) {
    const T* map = features + (image * s.channels + channel) * s.height * s.width;
    C sum = 0;
    for (int64_t i = 0; i < s.kernel; ++i) {
      const int64_t row = y + i - reach;
      if (row < 0 || row >= s.height) {
        continue;
      }
      for (int64_t j = 0; j < s.kernel; ++j) {
        const int64_t column = x + j - reach;
        if (column >= 0 && column < s.width) {
          const int64_t tap = i * s.kernel + j;
          const C weight = kShared ? weights[tap * kPixels + threadIdx.x] : C(mask[tap * pixels]);
          sum = multiply_add(weight, C(map[row * s.width + column]), sum);
        }
      }
    }
    output[(image * s.channels + channel) * pixels + pixel] = T(sum);
  }
}

// A thread per input number gathers from the output pixels in whose windows it lies: no atomics, one order of summation.
template <typename T, typename C>
__global__ void backward_features_kernel(
    const T* __restrict__ grad, const T* __restrict__ masks, ReassemblyShape s, int64_t total, T* __restrict__ out) {
  const int64_t pixels = s.out_height() * s.out_width(), reach = s.kernel / 2;
  PERCEPTION_FOR(item, total) {
    const int64_t x = item % s.width, y = item / s.width % s.height, channel = item / (s.width * s.height) % s.channels,
                  image = item / (s.width * s.height * s.channels), group = channel / s.per_group();
    const T* pull = grad + (image * s.channels + channel) * pixels;
    const T* mask = masks + (image * s.groups + group) * s.taps() * pixels;
    C sum = 0;
    for (int64_t i = 0; i < s.kernel; ++i) {
      const int64_t row = y + reach - i; // the window's centre of which (y, x) is tap (i, j)
      if (row < 0 || row >= s.height) {
        continue;
      }
      for (int64_t j = 0; j < s.kernel; ++j) {
        const int64_t column = x + reach - j;
        if (column < 0 || column >= s.width) {
          continue;
        }
        for (int64_t down = 0; down < s.scale; ++down) {
          for (int64_t right = 0; right < s.scale; ++right) {
            const int64_t pixel = (row * s.scale + down) * s.out_width() + column * s.scale + right;
            sum = multiply_add(C(mask[(i * s.kernel + j) * pixels + pixel]), C(pull[pixel]), sum);
          }
        }
      }
    }
    out[item] = T(sum);
  }
}

// A thread per weight sums over the channels of its group. Bound: gradients and window pixels, G times in all.
template <typename T, typename C>
__global__ void backward_masks_kernel(
    const T* __restrict__ grad, const T* __restrict__ features, ReassemblyShape s, int64_t total, T* __restrict__ out) {
  const int64_t pixels = s.out_height() * s.out_width(), per_group = s.per_group();
  PERCEPTION_FOR(item, total) {
    const int64_t pixel = item % pixels, tap = item / pixels % s.taps(), group = item / (pixels * s.taps()) % s.groups,
                  image = item / (pixels * s.taps() * s.groups);
    const int64_t row = pixel / s.out_width() / s.scale + tap / s.kernel - s.kernel / 2;
    const int64_t column = pixel % s.out_width() / s.scale + tap % s.kernel - s.kernel / 2;
    C sum = 0;
    if (row >= 0 && row < s.height && column >= 0 && column < s.width) {
      const int64_t first = image * s.channels + group * per_group;
      const T* pull = grad + first * pixels + pixel;
      const T* map = features + first * s.height * s.width + row * s.width + column;
      for (int64_t c = 0; c < per_group; ++c) {
        sum = multiply_add(C(pull[c * pixels]), C(map[c * s.height * s.width]), sum);
      }
    }
    out[item] = T(sum);
  }
}

// Maps and weights of two types (half-precision maps, say, and weights of a softmax in float32) are both computed with in
// float32.
at::ScalarType common_type(const Tensor& features, const Tensor& masks) {
  return features.scalar_type() == masks.scalar_type() ? features.scalar_type() : compute_type(features);
}

Tensor carafe(const Tensor& features, const Tensor& masks, int64_t kernel, int64_t groups, int64_t scale) {
  const ReassemblyShape s = read_reassembly(features, masks, kernel, groups, scale);
  PERCEPTION_GUARD(features);
  const auto type = common_type(features, masks);
  const Tensor maps = features.to(type).contiguous(), weights = masks.to(type).contiguous();
  Tensor output = at::empty({s.batch, s.channels, s.out_height(), s.out_width()}, maps.options());
  const int64_t tiles = ceil_div(s.out_height() * s.out_width(), kPixels),
                chunks = ceil_div(s.per_group(), kChannels);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, maps.scalar_type(), "carafe", [&] {
    using compute_t = typename Compute<scalar_t>::type;
    const int64_t bytes = s.taps() * kPixels * int64_t(sizeof(compute_t));
    const bool fits = bytes <= kSharedBytes;
    const auto run = fits ? forward_kernel<scalar_t, compute_t, true> : forward_kernel<scalar_t, compute_t, false>;
    PERCEPTION_LAUNCH(
        run, tiles * chunks * groups * s.batch, kPixels, fits ? bytes : 0,
        maps.const_data_ptr<scalar_t>(), weights.const_data_ptr<scalar_t>(), s, tiles, chunks,
        output.mutable_data_ptr<scalar_t>());
  });
  return output.to(features.scalar_type());
}

std::tuple<Tensor, Tensor> carafe_backward(
    const Tensor& grad,
    const Tensor& features,
    const Tensor& masks,
    int64_t kernel,
    int64_t groups,
    int64_t scale) {
  const ReassemblyShape s = read_reassembly(features, masks, kernel, groups, scale);
  PERCEPTION_GUARD(features);
  const auto type = common_type(features, masks);
  const Tensor maps = features.to(type).contiguous(), weights = masks.to(type).contiguous(),
               pulls = grad.to(type).contiguous();
  Tensor grad_maps = at::empty_like(maps), grad_weights = at::empty_like(weights);
  AT_DISPATCH_FLOATING_TYPES_AND2(at::kHalf, at::kBFloat16, type, "carafe_backward", [&] {
    using compute_t = typename Compute<scalar_t>::type;
    const auto to_features = backward_features_kernel<scalar_t, compute_t>;
    const auto to_masks = backward_masks_kernel<scalar_t, compute_t>;
    const scalar_t* pull = pulls.const_data_ptr<scalar_t>();
    PERCEPTION_LAUNCH(
        to_features, blocks_for(grad_maps.numel()), kThreads, 0, pull, weights.const_data_ptr<scalar_t>(), s,
        grad_maps.numel(), grad_maps.mutable_data_ptr<scalar_t>());
    PERCEPTION_LAUNCH(
        to_masks, blocks_for(grad_weights.numel()), kThreads, 0, pull, maps.const_data_ptr<scalar_t>(), s,
        grad_weights.numel(), grad_weights.mutable_data_ptr<scalar_t>());
  });
  return {grad_maps.to(features.scalar_type()), grad_weights.to(masks.scalar_type())};
}

PERCEPTION_CUDA_KERNELS(m) {
  m.impl("carafe", carafe);
  m.impl("carafe_backward", carafe_backward);
}

} // namespace
} // namespace perception
