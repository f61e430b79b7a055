"""What a stream consists of: the field of the first frame, and for each later frame what makes it of the previous one.

Coding is lossy where the encoder decides so (:func:`encode_frame`), and decoding is exact: the encoder trains on from
:func:`decode_frame` of its own output, so its state and the decoder's never part.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from perception.engine.errors import UserError

SH_CHANNELS = 27  # 9 coefficients for each of red, green, blue: index 9 * colour + coefficient
HALF_MAX = 65504.0  # greatest number of float16


class StreamError(UserError):
    """A part of a stream does not fit the others, or is damaged."""


@dataclass(frozen=True)
class FieldState:
    """A sparse voxel field as a stream knows it.

    Args:
        active: voxels that exist, bool (X, Y, Z).
        density: of the active voxels in row-major order, float32 (V, 1).
        sh: their spherical harmonics, float32 (V, 27), index ``9 * colour + coefficient``.
        radius, center: half extent and centre of the grid in (normalised device) coordinates, float32 (3,).

    Where a stream is of half precision, coefficients are float16 numbers held as float32, and so are densities that a
    frame has changed, so that a file may store two bytes each without loss. Densities of the base stay float32.
    """

    active: Tensor
    density: Tensor
    sh: Tensor
    radius: Tensor
    center: Tensor

    def __post_init__(self) -> None:
        rows = int(self.active.sum())
        if self.active.dtype != torch.bool or self.active.dim() != 3:
            raise StreamError(f"active must be bool (X, Y, Z), not {self.active.dtype} {tuple(self.active.shape)}")
        _check("density", self.density, (rows, 1), (torch.float32,))
        _check("sh", self.sh, (rows, SH_CHANNELS), (torch.float32,))
        _check("radius", self.radius, (3,), (torch.float32,))
        _check("center", self.center, (3,), (torch.float32,))

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along x, y and z."""
        x, y, z = self.active.shape
        return x, y, z

    def stored(self, half: bool, sh_step: float = 0.0) -> FieldState:
        """What a base file of this field holds: coefficients as multiples of a step, then float16 numbers, and
        densities as they are."""
        sh = _stepped(self.sh, sh_step)
        return replace(self, sh=_half(sh).float() if half else sh)


@dataclass(frozen=True)
class Rendering:
    """All that a decoder needs besides the field to make pictures; plain numbers.

    Args:
        ndc: fx, fy, width, height (pixels) of the camera whose normalised device coordinates the field lives in; none
            for a field in world coordinates.
        background: brightness behind the field.
        step_size: between samples, voxels.
        sigma_thresh: samples of no more density are skipped.
        stop_thresh: a ray ends below this transmittance.
    """

    ndc: tuple[float, float, float, float] | None
    background: float = 0.5
    step_size: float = 0.5
    sigma_thresh: float = 1e-8
    stop_thresh: float = 1e-7


@dataclass(frozen=True)
class BaseModel:
    """The first frame of a stream.

    Args:
        state: the field that the first delta builds on, dilated already: a decoder starts from exactly this.
        half: whether its coefficients and all values of deltas are float16 numbers.
        rendering: how pictures are made.
        cameras: digest of the training cameras, see :func:`projects.streamrf.data.cameras_digest`; empty if unknown.
        notes: what else a reader may want to know (preset, data, version): strings by name.
    """

    state: FieldState
    half: bool
    rendering: Rendering
    cameras: str = ""
    notes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class FrameDelta:
    """What makes the field of frame ``frame`` of that of frame ``frame - 1``.

    With ``active`` masks M_prev and M_next: *added* voxels are M_next & ~M_prev, *removed* M_prev & ~M_next, *common*
    M_prev & M_next, each in row-major order. Values are new ones, not differences.

    Args:
        frame: its number; the base is 0, or a key frame.
        active: M_next, bool (X, Y, Z).
        changed: which common voxels have new values, bool (C,).
        added_density, added_sh: of the A added voxels, (A, 1) and (A, 27).
        changed_density, changed_sh: of the K changed voxels, (K, 1) and (K, 27).

    All values are float16 in a stream of half precision, else float32.
    """

    frame: int
    active: Tensor
    changed: Tensor
    added_density: Tensor
    added_sh: Tensor
    changed_density: Tensor
    changed_sh: Tensor

    def __post_init__(self) -> None:
        added, changed = len(self.added_sh), int(self.changed.sum())
        kinds = (torch.float16, torch.float32)
        _check("added_density", self.added_density, (added, 1), kinds)
        _check("added_sh", self.added_sh, (added, SH_CHANNELS), kinds)
        _check("changed_density", self.changed_density, (changed, 1), kinds)
        _check("changed_sh", self.changed_sh, (changed, SH_CHANNELS), kinds)

    @property
    def half(self) -> bool:
        """Whether values are float16."""
        return self.added_sh.dtype == torch.float16

    @property
    def raw_bytes(self) -> int:
        """Bits of both masks and two bytes a value: what the paper's format takes before deflate."""
        values = 2 * (SH_CHANNELS + 1) * (len(self.added_sh) + len(self.changed_sh))
        return -(-self.active.numel() // 8) - (-self.changed.numel() // 8) + values


def encode_frame(
    frame: int,
    before: FieldState,
    after: FieldState,
    *,
    keep_threshold: float,
    prune_threshold: float,
    half: bool = True,
    sh_step: float = 0.0,
) -> FrameDelta:
    """The difference between the decoded field of the previous frame and the trained one of this frame (spec 3.5).

    Added voxels whose coefficients sum to less than ``prune_threshold`` in absolute value are left out; common ones are
    kept where their coefficients differ by more than ``keep_threshold``. Density does not enter either test.

    Args:
        frame: number of the new frame.
        before: the decoded field of the frame before.
        after: the trained field, of the same grid.
        keep_threshold: ``sh_keep_thres``.
        prune_threshold: ``sh_prune_thres``.
        half: store float16.
        sh_step: round coefficients to multiples of it, which entropy coders need; 0 leaves them as they are.

    Raises:
        StreamError: the grids differ in size.
    """
    if before.size != after.size:
        raise StreamError(f"frame {frame} has a grid of {after.size} voxels, the frame before it of {before.size}")
    old_in_new, new_in_old = before.active[after.active], after.active[before.active]
    added = ~old_in_new & (after.sh.abs().sum(1) >= prune_threshold)
    active = after.active.clone()
    active[after.active] = old_in_new | added
    old_sh, new_sh = before.sh[new_in_old], after.sh[old_in_new]
    changed = (new_sh - old_sh).abs().sum(1) > keep_threshold
    store = _half if half else (lambda values: values)
    return FrameDelta(
        frame=frame,
        active=active,
        changed=changed,
        added_density=store(after.density[added]),
        added_sh=store(_stepped(after.sh[added], sh_step)),
        changed_density=store(after.density[old_in_new][changed]),
        changed_sh=store(_stepped(new_sh[changed], sh_step)),
    )


def decode_frame(before: FieldState, delta: FrameDelta) -> FieldState:
    """The field of a frame, from that of the frame before it.

    Raises:
        StreamError: the delta was made for another field: counts do not agree.
    """
    if before.size != tuple(delta.active.shape):
        raise StreamError(
            f"frame {delta.frame} is of a grid of {tuple(delta.active.shape)} voxels, "
            f"but the field before it of {before.size}"
        )
    old_in_new, new_in_old = before.active[delta.active], delta.active[before.active]
    common, added = int(new_in_old.sum()), int((~old_in_new).sum())
    if common != len(delta.changed) or added != len(delta.added_sh):
        raise StreamError(
            f"frame {delta.frame} builds on a field with {len(delta.changed)} voxels in common and "
            f"{len(delta.added_sh)} added, but the field before it has {common} and {added}: "
            "the base or a frame between is another one"
        )
    return FieldState(
        active=delta.active,
        density=_merge(
            before.density[new_in_old], delta.changed, delta.changed_density, old_in_new, delta.added_density
        ),
        sh=_merge(before.sh[new_in_old], delta.changed, delta.changed_sh, old_in_new, delta.added_sh),
        radius=before.radius,
        center=before.center,
    )


def _merge(common: Tensor, changed: Tensor, new: Tensor, is_common: Tensor, added: Tensor) -> Tensor:
    values = common.new_empty(len(is_common), common.shape[1])
    common[changed] = new.to(common.dtype)
    values[is_common] = common
    values[~is_common] = added.to(common.dtype)
    return values


def _stepped(values: Tensor, step: float) -> Tensor:
    # A sum with 0 has no negative zeros, which would take a bit of their own.
    return (values / step).round() * step + 0.0 if step else values


def _half(values: Tensor) -> Tensor:
    return values.clamp(-HALF_MAX, HALF_MAX).half()


def _check(name: str, value: Tensor, shape: tuple[int, ...], dtypes: tuple[torch.dtype, ...]) -> None:
    if tuple(value.shape) != shape or value.dtype not in dtypes:
        raise StreamError(
            f"{name} must be {' or '.join(map(str, dtypes))} {shape}, not {value.dtype} {tuple(value.shape)}"
        )
