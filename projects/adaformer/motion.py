"""Trackers that regress how a target moves between two frames.

M2-Track (arXiv 2203.01730), and MoCUT, which is M2-Track with AdaFormer as the encoder of its segmentation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from perception.layers.point_sets import FeaturePropagation, maximum

from .box_transforms import compose, into_frame, move_with

BOX_CLOUD = 9
"""Channels of a BoxCloud: distances of a point to a box's centre and eight corners, metres (BAT, arXiv 2108.04728)."""


@dataclass
class MotionOutput:
    """Boxes of a motion tracker, (B, 4) as x, y, z (m) and yaw (rad) in the frame of the previous reference box.

    Attributes:
        boxes: of the current frame, the second stage's; without it None, and the first stage's are the result.
        first_boxes: the first stage's.
        previous_boxes: of the previous frame, refined; None where they are not.
        motion: (B, 4) from the previous box to the current one, before the state masks it.
        state: (B, 2) logits: at rest, moving; None where targets always move.
        segmentation: (B, 2, N) logits: background, target.
        box_cloud: (B, N, 9) predicted distances to the target's box, metres; None without BoxCloud.
    """

    boxes: Tensor | None
    first_boxes: Tensor
    previous_boxes: Tensor | None
    motion: Tensor
    state: Tensor | None
    segmentation: Tensor
    box_cloud: Tensor | None

    @property
    def last_boxes(self) -> Tensor:
        """(B, 4) of the current frame, of the last stage that there is."""
        return self.first_boxes if self.boxes is None else self.boxes


def _pointwise(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv1d(in_channels, out_channels, 1), nn.BatchNorm1d(out_channels), nn.ReLU())


class SegPointNet(nn.Module):
    """Segments points by their own features and the cloud's (PointNet, arXiv 1612.00593).

    Args:
        in_channels: of a point.
        per_point: channels of the layers before the maximum over the cloud.
        decoder: channels of the layers after it; they see the second layer's features beside the cloud's.
        out_channels: of the result.

    Shape:
        (B, N, in_channels) to (B, out_channels, N).
    """

    def __init__(
        self,
        in_channels: int = 14,
        per_point: Sequence[int] = (64, 64, 64, 128, 1024),
        decoder: Sequence[int] = (512, 256, 128, 128),
        out_channels: int = 2 + BOX_CLOUD,
    ):
        super().__init__()
        widths = [in_channels, *per_point]
        self.seq_per_point = nn.ModuleList(_pointwise(*pair) for pair in zip(widths, per_point, strict=False))
        widths = [per_point[1] + per_point[-1], *decoder]
        self.seq_per_point2 = nn.ModuleList(_pointwise(*pair) for pair in zip(widths, decoder, strict=False))
        self.fc = nn.Conv1d(decoder[-1], out_channels, 1)

    def forward(self, points: Tensor) -> Tensor:
        x, outputs = points.mT, []
        for layer in self.seq_per_point:
            x = layer(x)
            outputs.append(x)
        x = torch.cat([outputs[1], maximum(x, -1)[..., None].expand_as(x)], 1)
        for layer in self.seq_per_point2:
            x = layer(x)
        return self.fc(x)


class SegAdaFormer(nn.Module):
    """Segments points with AdaFormer as the encoder and feature propagation as the decoder.

    Args:
        backbone: :class:`.backbone.AdaFormer` of three stages, whose input has ``in_channels - 3`` features.
        in_channels: of a point, position included.
        decoder: channels of both layers of each propagation, from coarse to fine.
        out_channels: of the result.

    Shape:
        (B, N, in_channels) to (B, out_channels, N); the backbone keeps 1/2, 1/4 and 1/8 of the points.
    """

    def __init__(
        self,
        backbone: nn.Module,
        in_channels: int = 14,
        decoder: Sequence[Sequence[int]] = ((256, 256), (256, 128), (128, 128)),
        out_channels: int = 2 + BOX_CLOUD,
    ):
        super().__init__()
        self.backbone = backbone
        skips = [in_channels, *(stage.block.norm1.normalized_shape[0] for stage in backbone.stages)]
        modules, width = [], skips[-1]
        for skip, layers in zip(reversed(skips[:-1]), decoder, strict=True):
            modules.append(FeaturePropagation([width + skip, *layers]))
            width = layers[-1]
        self.decoder = nn.ModuleList(modules)
        self.fc = nn.Conv1d(width, out_channels, 1)

    def forward(self, points: Tensor) -> Tensor:
        count = points.shape[1]
        levels = self.backbone(points, (count // 2, count // 4, count // 8))
        skips = [points.mT, *levels.features[1:]]
        x = skips[-1]
        for number, module in enumerate(self.decoder):
            fine = len(self.decoder) - 1 - number
            x = module(levels.xyz[fine], levels.xyz[fine + 1], skips[fine], x)
        return self.fc(x)


class MiniPointNet(nn.Module):
    """One vector for a cloud.

    Args:
        in_channels: of a point.
        per_point: channels of the layers before the maximum over the cloud.
        hidden: channels of the layers after it.
        out_channels: of a last layer ``fc`` with neither batch norm nor ReLU; None for none.

    Shape:
        (B, N, in_channels) to (B, hidden[-1]) or (B, out_channels).
    """

    def __init__(
        self,
        in_channels: int,
        per_point: Sequence[int] = (64, 128, 256, 512),
        hidden: Sequence[int] = (512, 256),
        out_channels: int | None = None,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer in zip([in_channels, *per_point], per_point, strict=False):
            layers += [nn.Conv1d(inner, outer, 1), nn.BatchNorm1d(outer), nn.ReLU()]
        layers += [nn.AdaptiveMaxPool1d(1), nn.Flatten()]
        for inner, outer in zip([per_point[-1], *hidden], hidden, strict=False):
            layers += [nn.Linear(inner, outer), nn.BatchNorm1d(outer), nn.ReLU()]
        self.features = nn.Sequential(*layers)
        self.fc = None if out_channels is None else nn.Linear([per_point[-1], *hidden][-1], out_channels)

    def forward(self, points: Tensor) -> Tensor:
        x = self.features(points.mT)
        return x if self.fc is None else self.fc(x)


def _head(channels: int, outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inner in (channels, 128):
        layers += [nn.Linear(inner, 128), nn.BatchNorm1d(128), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(128, outputs))


class MotionNetwork(nn.Module):
    """Segments the target in two frames, regresses its motion, and refines the box where both frames meet.

    Args:
        segmenter: :class:`SegPointNet` (M2-Track) or :class:`SegAdaFormer` (MoCUT): 14 channels to 2 + 9, or 5 to 2
            without BoxCloud.
        box_aware: points come with a BoxCloud, and one is predicted (``box_aware`` of Open3DSOT).
        motion_state: tell targets at rest from moving ones, and let only these move (``use_motion_cls``).
        second_stage: refine the box where both frames meet (``use_second_stage``).
        previous_refinement: refine the previous box, too (``use_prev_refinement``).

    Shape:
        points (B, N, 5): x, y, z (m), time (s), mask; the previous frame's half first. BoxCloud (B, N, 9), None unless
        ``box_aware``.
    """

    def __init__(
        self,
        segmenter: nn.Module,
        *,
        box_aware: bool = True,
        motion_state: bool = True,
        second_stage: bool = True,
        previous_refinement: bool = True,
    ):
        super().__init__()
        extra = BOX_CLOUD if box_aware else 0
        self.box_aware = box_aware
        self.seg_pointnet = segmenter
        self.mini_pointnet = MiniPointNet(4 + extra)
        self.mini_pointnet2 = MiniPointNet(3 + extra) if second_stage else None
        self.box_mlp = _head(256, 4) if second_stage else None
        self.final_mlp = _head(256, 4) if previous_refinement else None
        self.motion_state_mlp = _head(256, 2) if motion_state else None
        self.motion_mlp = _head(256, 4)

    def forward(self, points: Tensor, box_cloud: Tensor | None = None) -> MotionOutput:
        half = points.shape[1] // 2
        given = [points]
        if self.box_aware:
            if box_cloud is None:
                raise ValueError("a network with BoxCloud needs one (box_aware=False has none)")
            given.append(box_cloud)
        segmented = self.seg_pointnet(torch.cat(given, -1))
        logits = segmented[:, :2]
        chosen = logits.argmax(1)[..., None]  # (B, N, 1): 1 on the target
        target = points[..., :4] * chosen
        predicted_cloud = segmented[:, 2:].mT if self.box_aware else None
        target_cloud = [] if predicted_cloud is None else [predicted_cloud * chosen]

        described = self.mini_pointnet(torch.cat([target, *target_cloud], -1))
        motion = moved = self.motion_mlp(described)
        state = previous = boxes = None
        if self.motion_state_mlp is not None:
            state = self.motion_state_mlp(described)
            moved = motion * state.argmax(1, keepdim=True)
        if self.final_mlp is not None:
            previous = self.final_mlp(described)
        reference = torch.zeros_like(motion) if previous is None else previous
        first = compose(reference, moved)

        if self.mini_pointnet2 is not None:
            xyz = target[..., :3]
            arrived = move_with(xyz[:, :half], reference, moved)
            merged = into_frame(torch.cat([arrived, xyz[:, half:]], 1), first)
            boxes = compose(first, self.box_mlp(self.mini_pointnet2(torch.cat([merged, *target_cloud], -1))))
        return MotionOutput(boxes, first, previous, motion, state, logits, predicted_cloud)
