"""Volume rendering of ragged samples: sums over the samples of each ray."""

from __future__ import annotations

from torch import Tensor

from perception.ops.alphas_to_weights import MIN_TRANSMITTANCE, alphas_to_weights

__all__ = ["MIN_TRANSMITTANCE", "alphas_to_weights", "segment_sum"]


def segment_sum(values: Tensor, ray_id: Tensor, num_rays: int) -> Tensor:
    """Sum values (M,) or (M, C) over the samples of each ray: (N,) or (N, C).

    Example:
        >>> segment_sum(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0, 0, 2]), num_rays=3)
        tensor([3., 0., 4.])
    """
    return values.new_zeros(num_rays, *values.shape[1:]).index_add(0, ray_id, values)
