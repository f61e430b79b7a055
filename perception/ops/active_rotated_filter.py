"""Active rotating filters of ORN / S2ANet."""

from torch import Tensor

__all__ = ["active_rotated_filter"]


def active_rotated_filter(weight: Tensor, indices: Tensor) -> Tensor:
    r"""Rotated copies of a convolution kernel with orientation channels (ORN, arXiv:1701.01833; S2ANet, 2008.09397).

    Args:
        weight: canonical filter of shape :math:`(C_{out}, C_{in}, O, H, W)` with O orientation channels.
        indices: for each entry (orientation, row, column) and rotation the entry it moves to, counted from one in
            row-major order, an integer tensor of shape :math:`(O, H, W, R)`.

    Returns:
        Kernel of all R rotations, of shape :math:`(C_{out} R, C_{in} O, H, W)`.
    """
    out_planes, in_planes, orientations, height, width = weight.shape
    rotations = indices.shape[-1]
    entries = orientations * height * width
    target = (indices.reshape(entries, rotations).T - 1).long()  # R (O H W)
    shape = (out_planes, rotations, in_planes, entries)
    source = weight.reshape(out_planes, 1, in_planes, entries).expand(shape)
    rotated = weight.new_zeros(shape).scatter(3, target[None, :, None].expand(shape), source)
    return rotated.reshape(out_planes * rotations, in_planes * orientations, height, width)
