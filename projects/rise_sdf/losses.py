"""The losses of RISE-SDF, and of NeuS, which has some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from perception.radiance.distortion import distortion_loss
from perception.radiance.neus import eikonal_loss, mask_loss, opaque_loss, sparsity_loss
from projects.rise_sdf.surface import SurfaceSamples


def loss_terms(
    samples: SurfaceSamples,
    colours: Mapping[str, Tensor],
    target: Tensor,
    mask: Tensor | None,
    *,
    curvature: Tensor | None = None,
    wanted: Sequence[str] | None = None,
) -> dict[str, Tensor]:
    """All terms that can be taken, without their weights.

    Args:
        samples: of N rays.
        colours: of a rendering: ``rgb`` (N, 3), and where it has them ``rgb_phys``, ``specular_rgb`` and
            ``specular_rgb_phys``.
        target: (N, 3) sRGB on the same background.
        mask: coverage (N,) in [0, 1], if it is known.
        curvature: (M,) of the samples, if it was taken.
        wanted: names of the terms; by default all.
    """
    opacity = samples.sum(torch.ones_like(samples.sdf))
    valid = opacity > 0
    facing = (samples.directions * samples.normal).sum(-1).clamp(min=0)
    takes = {
        "eikonal": lambda: eikonal_loss(samples.gradient),
        "sparsity": lambda: sparsity_loss(samples.sdf),
        "normal_orientation": lambda: samples.sum(facing).mean(),
        "opaque": lambda: opaque_loss(opacity),
        "distortion": lambda: _distortion(samples),
    }
    for name, colour in (("rgb", "rgb"), ("rgb_phys", "rgb_phys")):
        if colour in colours:
            takes[f"{name}_mse"] = lambda colour=colour: _error(F.mse_loss, colours[colour][valid], target[valid])
            takes[f"{name}_l1"] = lambda colour=colour: _error(F.l1_loss, colours[colour][valid], target[valid])
    if mask is not None:
        takes["mask"] = lambda: mask_loss(opacity, mask)
    if curvature is not None:
        takes["curvature"] = lambda: curvature.abs().mean() if len(curvature) else curvature.sum()
    if "specular_rgb_phys" in colours:
        takes["emitter_distillation"] = lambda: _error(
            F.mse_loss, colours["specular_rgb"][valid], colours["specular_rgb_phys"][valid]
        )
    return {name: take() for name, take in takes.items() if wanted is None or name in wanted}


def weight_at(weight: Sequence[float], step: int) -> float:
    """A weight at a step: one number, or ``start step, first value, last value, end step`` of a straight rise.

    Raises:
        ValueError: it is neither.

    Example:
        >>> weight_at((100, 0.0, 1.0, 200), step=150)
        0.5
    """
    if len(weight) == 1:
        return weight[0]
    if len(weight) != 4 or weight[3] <= weight[0]:
        raise ValueError(
            f"a weight is one number, or start step, first value, last value, end step; not {list(weight)}"
        )
    start, first, last, end = weight
    return first + (last - first) * min(max((step - start) / (end - start), 0.0), 1.0)


def _error(measure, prediction: Tensor, target: Tensor) -> Tensor:
    return measure(prediction, target) if len(target) else prediction.sum()


def _distortion(samples: SurfaceSamples) -> Tensor:
    sections = samples.sections
    if not len(sections.ray_id):
        return samples.weights.sum()
    lengths = sections.t_end - sections.t_start
    return distortion_loss(samples.weights, sections.middle, lengths, sections.ray_id)
