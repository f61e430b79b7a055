"""BEVFormer v2: both heads of one frame, in training, from feature maps of six cameras to all losses."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from perception.geometry import cameras, se3
from projects.bevformer_v2.head import BEVFormerHead
from projects.bevformer_v2.losses import BEVCriterion, Target3D
from projects.bevformer_v2.perspective.head import NuscenesDD3D
from projects.bevformer_v2.perspective.losses import PerspectiveCriterion
from projects.bevformer_v2.perspective.targets import CameraTargets
from projects.bevformer_v2.points import Rig
from system_cases import Core

SMALL = dict(
    embed_dims=32,
    bev_size=(16, 16),
    num_queries=12,
    num_groups=2,
    transformer=dict(
        num_heads=4, feedforward_channels=64, num_encoder_layers=2, num_decoder_layers=2, frames=(-1, 0), dropout=0.0
    ),
)


class Heads(nn.Module):
    """Both heads with their losses, and what they learn from."""

    matrices: Tensor
    boxes: Tensor
    camera_boxes: Tensor

    def __init__(self, image_size: tuple[int, int], settings: dict) -> None:
        super().__init__()
        self.image_size = image_size
        self.pts_bbox_head = BEVFormerHead(**settings)
        self.fcos3d_bbox_head = NuscenesDD3D(in_channels=settings.get("embed_dims", 256))
        self.criterion, self.perspective_criterion = BEVCriterion(), PerspectiveCriterion()
        self.register_buffer("matrices", rig_matrices(image_size)[None])
        self.register_buffer("boxes", torch.rand(20, 9) * torch.tensor([80, 80, 2, 4, 4, 3, 6, 5, 5]) + 0.5)
        self.register_buffer("camera_boxes", torch.rand(5, 6) + 1)

    def forward(self, *maps: Tensor) -> dict[str, Tensor]:
        """Losses of five maps (6, C, H, W), after which an earlier view (1, cells, C) comes where frames are fused."""
        device = maps[0].device
        history = [maps[5], None] if len(maps) > 5 else []
        output = self.pts_bbox_head([x[None] for x in maps[:4]], Rig(self.matrices, self.image_size), history)
        labels = torch.arange(len(self.boxes), device=device) % 10
        losses = self.criterion(output, [Target3D(labels, self.boxes)], self.pts_bbox_head.code_weights)
        perspective = self.perspective_criterion(self.fcos3d_bbox_head(maps[:5]), self._camera_targets(device))
        return losses | {f"{name}_mono": loss for name, loss in perspective.items()}

    def _camera_targets(self, device: torch.device) -> Sequence[CameraTargets]:
        height, width = self.image_size
        low = self.camera_boxes[:, :2] / 4 * torch.tensor([width, height], device=device)
        boxes2d = torch.cat([low, low + self.camera_boxes[:, 2:4] * height / 6], 1)
        count = len(boxes2d)
        boxes3d = torch.cat([self.camera_boxes[:, :4], torch.zeros(count, 2, device=device)], 1)
        boxes3d = torch.cat([boxes3d, 15 * self.camera_boxes[:, 4:5], self.camera_boxes[:, :3]], 1)
        intrinsics = torch.tensor([[0.55 * width, 0, width / 2], [0, 0.55 * width, height / 2], [0, 0, 1]])
        labels = torch.arange(count, device=device)
        speeds = self.camera_boxes[:, 5]
        return [CameraTargets(labels, boxes2d, boxes3d, labels % 4, speeds, intrinsics.to(device))] * 6


def rig_matrices(image_size: tuple[int, int]) -> Tensor:
    """Six cameras (6, 4, 4) around a vehicle, 60 degrees apart, each of 85 degrees."""
    height, width = image_size
    intrinsics = torch.tensor([[0.55 * width, 0, width / 2], [0, 0.55 * width, height / 2], [0, 0, 1]])
    matrices = []
    for number in range(6):
        sin, cos = math.sin(number * math.pi / 3), math.cos(number * math.pi / 3)
        rotation = torch.tensor([[cos, -sin, 0], [0, 0, -1], [sin, cos, 0]])
        pose = se3.compose(rotation, -rotation @ torch.tensor([0.8 * sin, 0.8 * cos, 0.0]))
        matrices.append(cameras.image_matrix(intrinsics, pose))
    return torch.stack(matrices)


def core(large: bool) -> Core:
    image_size = (640, 1600) if large else (64, 96)
    channels = 256 if large else 32
    heads = Heads(image_size, dict(num_groups=11) if large else SMALL)
    sizes = [tuple(-(-side // stride) for side in image_size) for stride in (8, 16, 32, 64, 128)]
    maps = [torch.randn(6, channels, *size) for size in sizes]
    if not large:
        maps.append(torch.randn(1, 256, channels))
    return Core(heads, tuple(maps), _loss)


def _loss(heads: Heads, *maps: Tensor) -> Tensor:
    return torch.stack(list(heads(*maps).values())).sum()
