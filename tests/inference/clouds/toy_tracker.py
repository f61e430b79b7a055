"""A tracker without a network: a box goes to the middle of the points that stand out of the ground near it."""

import torch
from mmengine.model import BaseModel
from mmengine.registry import MODELS

from perception.geometry import boxes3d
from perception.inference.clouds.kind import Clouds  # noqa: F401 (configs name it)
from perception.inference.clouds.model import Step, Target
from tests.inference.toy_work import work


@MODELS.register_module()
class MiddleTracker(BaseModel):
    def __init__(self, seconds=0.0):
        super().__init__()
        self.seconds = seconds
        self.reach = torch.nn.Parameter(torch.tensor(1.0))

    def forward(self, inputs, mode="tensor"):
        raise NotImplementedError

    def begin(self, points, box):
        return Target(box, torch.zeros(1, 3), torch.zeros(1, 3))

    def step(self, targets, points):
        work(self.seconds)
        steps = []
        for target, cloud in zip(targets, points, strict=True):
            local = boxes3d.to_box_frame(cloud.double(), target.box)
            half = target.box[3:6] / 2 + torch.tensor([float(self.reach), float(self.reach), 0.0])
            near = local[(local.abs() < half).all(1)]
            if len(near) > 2:
                middle = boxes3d.from_box_frame(near.mean(0, keepdim=True), target.box)[0]
                box, status = torch.cat([middle[:2], target.box[2:]]), "ok"
            else:
                box, status = target.box, "lost"
            target.motion = box[:2] - target.box[:2]
            target.box, target.age = box, target.age + 1
            steps.append(Step(box, 0.75 if status == "ok" else float("nan"), len(near), status))
        return steps
