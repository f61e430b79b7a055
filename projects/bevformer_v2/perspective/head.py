"""Towers and predictors of the perspective head (FCOS3D's and DD3D's for nuScenes; arXiv 2211.10439, section 3.2).

The names of the modules are those of the published weights. Notation: M images, V levels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from perception.layers.precision import at_least_float32

MEAN_DEPTHS = (44.921, 20.252, 11.712, 7.166, 8.548)
STD_DEPTHS = (24.331, 9.833, 6.223, 4.611, 8.275)
"""Of objects that nuScenes' levels are responsible for, metres at the reference focal length."""
DEPTH_SCALE = 0.3


@dataclass
class PerspectiveOutput:
    """Predictions for every place of every level; maps (M, channels, H_v, W_v), at least float32.

    Attributes:
        logits: K.
        box2d: 4; left, top, right, bottom of the location, pixels, not negative.
        centerness: 1, logits.
        quat: 4 K, w, x, y, z before the class.
        ctr: 2 K, pixels from the location to the projected centre.
        depth: K, metres at the reference focal length.
        size: 3 K, see :class:`~projects.bevformer_v2.perspective.boxes.BoxDecoding`.
        conf: K, logits.
        attr: A, logits.
        speed: 1, m/s, not negative.
    """

    logits: list[Tensor]
    box2d: list[Tensor]
    centerness: list[Tensor]
    quat: list[Tensor]
    ctr: list[Tensor]
    depth: list[Tensor]
    size: list[Tensor]
    conf: list[Tensor]
    attr: list[Tensor]
    speed: list[Tensor]


class Scale(nn.Module):
    """A learned factor."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([value]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Offset(nn.Module):
    """A learned addend."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.tensor([value]))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias


class TowerLayer(nn.Conv2d):
    """A convolution that levels share, a batch norm for each level, ReLU."""

    def __init__(self, channels: int, num_levels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")
        self.norm = nn.ModuleList(nn.BatchNorm2d(channels) for _ in range(num_levels))

    def forward(self, x: Tensor, level: int) -> Tensor:  # pyrefly: ignore[bad-override]
        x, norm = super().forward(x), self.norm[level]
        if x.numel() == x.shape[1]:  # a single place of a single image has no statistics of its own
            scale = norm.weight * (norm.running_var + norm.eps).rsqrt()
            shift = norm.bias - norm.running_mean * scale
            return F.relu(x * scale[:, None, None] + shift[:, None, None])
        return F.relu(norm(x))


class FCOS2DHead(nn.Module):
    """Class and 2D box: cls_tower, box2d_tower and what follows them."""

    def __init__(
        self, num_classes: int, channels: int, strides: Sequence[int], num_cls_convs: int, num_box_convs: int
    ) -> None:
        super().__init__()
        self.cls_tower = _tower(channels, len(strides), num_cls_convs)
        self.box2d_tower = _tower(channels, len(strides), num_box_convs)
        self.cls_logits = _predictor(channels, num_classes)
        self.box2d_reg = _predictor(channels, 4)
        self.centerness = _predictor(channels, 1)
        self.scales_box2d_reg = nn.ModuleList(Scale(float(stride)) for stride in strides)


class FCOS3DHead(nn.Module):
    """3D box: box3d_tower and what follows it."""

    mean_depth_per_level: Tensor
    std_depth_per_level: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        strides: Sequence[int],
        num_convs: int,
        mean_depths: Sequence[float],
        std_depths: Sequence[float],
    ) -> None:
        super().__init__()
        self.register_buffer("mean_depth_per_level", torch.tensor(mean_depths))
        self.register_buffer("std_depth_per_level", torch.tensor(std_depths))
        self.box3d_tower = _tower(channels, len(strides), num_convs)
        # Lists of one, as the published weights have them: all levels share the predictors.
        self.box3d_quat = nn.ModuleList([_predictor(channels, 4 * num_classes)])
        self.box3d_ctr = nn.ModuleList([_predictor(channels, 2 * num_classes)])
        self.box3d_depth = nn.ModuleList([_predictor(channels, num_classes, bias=False)])
        self.box3d_size = nn.ModuleList([_predictor(channels, 3 * num_classes)])
        self.box3d_conf = nn.ModuleList([_predictor(channels, num_classes)])
        self.scales_proj_ctr = nn.ModuleList(Scale(float(stride)) for stride in strides)
        self.scales_size = nn.ModuleList(Scale(1.0) for _ in strides)
        self.scales_conf = nn.ModuleList(Scale(1.0) for _ in strides)
        self.scales_depth = nn.ModuleList(Scale(DEPTH_SCALE * std) for std in std_depths)
        self.offsets_depth = nn.ModuleList(Offset(mean) for mean in mean_depths)


class NuscenesDD3D(nn.Module):
    """DD3D with attributes and speed.

    Args:
        num_classes: K.
        in_channels: of the maps and the towers.
        strides: of the V levels, pixels.
        num_convs: of each tower, or of those of classes, 2D boxes and 3D boxes.
        num_attributes: A.
        mean_depths, std_depths: of each level.

    Raises:
        ValueError: depths for another number of levels, or convolutions for another number of towers.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_channels: int = 256,
        strides: Sequence[int] = (8, 16, 32, 64, 128),
        num_convs: int | Sequence[int] = 4,
        num_attributes: int = 3,
        mean_depths: Sequence[float] = MEAN_DEPTHS,
        std_depths: Sequence[float] = STD_DEPTHS,
    ) -> None:
        super().__init__()
        if not len(mean_depths) == len(std_depths) == len(strides):
            raise ValueError(
                f"mean_depths and std_depths need a number for each of the {len(strides)} strides, got "
                f"{len(mean_depths)} and {len(std_depths)}"
            )
        self.num_classes, self.num_attributes, self.strides = num_classes, num_attributes, tuple(strides)
        *flat, solid = towers = (num_convs,) * 3 if isinstance(num_convs, int) else tuple(num_convs)
        if len(towers) != 3:
            raise ValueError(f"num_convs must be one number or three, of classes, 2D and 3D boxes, got {towers}")
        self.fcos2d_head = FCOS2DHead(num_classes, in_channels, strides, *flat)
        self.fcos3d_head = FCOS3DHead(num_classes, in_channels, strides, solid, mean_depths, std_depths)
        self.attr_logits = _predictor(in_channels, num_attributes)
        self.speed = _predictor(in_channels, 1)

    def forward(self, feats: Sequence[Tensor]) -> PerspectiveOutput:
        """V maps (M, C, H_v, W_v); computed in float32 where the precision around is less."""
        if len(feats) != len(self.strides):
            raise ValueError(f"strides are given for {len(self.strides)} levels, but there are maps of {len(feats)}")
        with torch.autocast(feats[0].device.type, enabled=False):
            levels = [self._predict(at_least_float32(feat), level) for level, feat in enumerate(feats)]
        return PerspectiveOutput(*(list(maps) for maps in zip(*levels)))

    def _predict(self, feat: Tensor, level: int) -> tuple[Tensor, ...]:
        """The fields of :class:`PerspectiveOutput` for one level."""
        flat, solid = self.fcos2d_head, self.fcos3d_head
        cls, box2d, box3d = (
            _climb(tower, feat, level) for tower in (flat.cls_tower, flat.box2d_tower, solid.box3d_tower)
        )
        return (
            flat.cls_logits(cls),
            F.relu(flat.scales_box2d_reg[level](flat.box2d_reg(box2d))),
            flat.centerness(box2d),
            solid.box3d_quat[0](box3d),
            solid.scales_proj_ctr[level](solid.box3d_ctr[0](box3d)),
            solid.offsets_depth[level](solid.scales_depth[level](solid.box3d_depth[0](box3d))),
            solid.scales_size[level](solid.box3d_size[0](box3d)),
            solid.scales_conf[level](solid.box3d_conf[0](box3d)),
            self.attr_logits(cls),
            F.relu(self.speed(cls)),
        )


def locations(output: PerspectiveOutput, strides: Sequence[int]) -> list[Tensor]:
    """Pixels (H W, 2) u, v that the places of each level stand for: their number times the stride."""
    found = []
    for logits, stride in zip(output.logits, strides, strict=True):
        v, u = (torch.arange(0, size * stride, stride, device=logits.device) for size in logits.shape[-2:])
        found.append(torch.stack(torch.meshgrid(u, v, indexing="xy"), -1).flatten(0, 1).float())
    return found


def flatten(maps: Sequence[Tensor]) -> Tensor:
    """Maps (M, channels, H, W) as rows (places, channels): level by level, in it image by image, row by row."""
    return torch.cat([x.flatten(2).mT.flatten(0, 1) for x in maps])


def _tower(channels: int, num_levels: int, num_convs: int) -> nn.ModuleList:
    return nn.ModuleList(TowerLayer(channels, num_levels) for _ in range(num_convs))


def _predictor(channels: int, out_channels: int, bias: bool = True) -> nn.Conv2d:
    conv = nn.Conv2d(channels, out_channels, 3, padding=1, bias=bias)
    nn.init.kaiming_uniform_(conv.weight, a=1)
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)  # that of the classes, too: its loss begins high
    return conv


def _climb(tower: nn.ModuleList, x: Tensor, level: int) -> Tensor:
    for layer in tower:
        x = layer(x, level)
    return x
