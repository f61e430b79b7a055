"""mmrotate's own detector configs build, train one step and predict on an mmcv without compiled operators."""

from pathlib import Path

import mmrotate
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from mmrotate.registry import MODELS
from mmrotate.structures.bbox import RotatedBoxes
from mmrotate.utils import register_all_modules

from tests.ops.stock import predict, train_a_step

CONFIGS = Path(mmrotate.__file__).parent / ".mim" / "configs"
RECIPES = {
    "Oriented R-CNN": "oriented_rcnn/oriented-rcnn-le90_r50_fpn_1x_dota.py",
    "Rotated RetinaNet": "rotated_retinanet/rotated-retinanet-rbox-le90_r50_fpn_1x_dota.py",
    "RoI Transformer": "roi_trans/roi-trans-le90_r50_fpn_1x_dota.py",
    "S2ANet": "s2anet/s2anet-le135_r50_fpn_1x_dota.py",
    "R3Det": "r3det/r3det-oc_r50_fpn_1x_dota.py",
    "Oriented RepPoints": "oriented_reppoints/oriented-reppoints-qbox_r50_fpn_1x_dota.py",
    "Rotated RTMDet": "rotated_rtmdet/rotated_rtmdet_tiny-3x-dota.py",
}
SIZE = 128


@pytest.fixture(scope="module", autouse=True)
def _registered():
    register_all_modules(init_default_scope=True)


@pytest.mark.parametrize("name", RECIPES)
def test_builds_trains_a_step_and_predicts(name):
    config = Config.fromfile(CONFIGS / RECIPES[name]).model
    if config.backbone.type == "mmdet.ResNet":
        config.backbone.update(depth=18, frozen_stages=-1, norm_eval=False)
        config.neck.in_channels = [64, 128, 256, 512]
    config.backbone.init_cfg = None
    model = MODELS.build(config)
    batch = train_a_step(model, two_images("qbox" if "qbox" in RECIPES[name] else "rbox"))

    for part in (model.test_cfg, (model.test_cfg or {}).get("rcnn")):
        if part is not None and "score_thr" in part:
            part.score_thr = 0.0
    for result in predict(model, batch):
        predicted = result.pred_instances
        assert len(predicted) > 0
        boxes = torch.as_tensor(getattr(predicted.bboxes, "tensor", predicted.bboxes))
        assert boxes.shape[1] in (5, 8)
        assert torch.isfinite(boxes).all()
        assert ((predicted.scores >= 0) & (predicted.scores <= 1)).all()


def two_images(kind):
    generator = torch.Generator().manual_seed(0)
    images, samples = [], []
    for boxes in ([[40, 40, 50, 30, 0.4], [85, 75, 60, 24, -0.7]], [[60, 60, 70, 40, 0.2]]):
        images.append(torch.randint(0, 256, (3, SIZE, SIZE), generator=generator, dtype=torch.uint8))
        sample = DetDataSample(
            metainfo={
                "img_shape": (SIZE, SIZE),
                "ori_shape": (SIZE, SIZE),
                "pad_shape": (SIZE, SIZE),
                "batch_input_shape": (SIZE, SIZE),
                "scale_factor": (1.0, 1.0),
            }
        )
        for field, content in (("gt_instances", torch.tensor(boxes)), ("ignored_instances", torch.zeros(0, 5))):
            boxes_of_kind = RotatedBoxes(content).convert_to(kind)
            setattr(sample, field, InstanceData(bboxes=boxes_of_kind, labels=torch.arange(len(content))))
        samples.append(sample)
    return {"inputs": images, "data_samples": samples}
