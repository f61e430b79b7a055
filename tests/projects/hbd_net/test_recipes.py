"""Every recipe on GLH-Bridge: sizes, the released numbers, and that each detector takes a step."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmrotate.structures.bbox import QuadriBoxes, RotatedBoxes, rbox2qbox

from perception.engine.config import drop_initial_weights, load_config
from projects.hbd_net.context import RandomFlipWithContext
from projects.hbd_net.head import ShapeSensitiveBBoxHead
from projects.hbd_net.patches import GLHBridge, GLHBridgePyramid, GLHBridgeWithContext
from tests.conftest import REPOSITORY

# Millions of parameters; 94.5 and 41.35 are the published detectors'.
SIZES = {
    "hbd_net": 94.50,
    "hbd_net/from_stages": 94.50,
    "hbd_net/fuse_at_test": 94.50,
    "hbd_net/merged": 82.70,
    "hbd_net/merged_oc": 82.70,
    "hbd_net/single_stage": 64.23,
    "hbd_net/native": 41.35,
    "hbd_net/down2": 41.35,
    "hbd_net/down4": 41.35,
    "hbd_net/down8": 41.35,
    "hbd_net/down16": 41.35,
    "glh_bridge/oriented_rcnn": 41.35,
    "glh_bridge/oriented_reppoints": 36.83,
    "glh_bridge/r3det": 41.81,
    "glh_bridge/r3det_kld": 41.81,
    "glh_bridge/roi_trans": 55.25,
    "glh_bridge/rotated_faster_rcnn": 41.35,
    "glh_bridge/rotated_fcos": 32.12,
    "glh_bridge/rotated_retinanet": 36.35,
    "glh_bridge/rotated_retinanet_gwd": 36.35,
    "glh_bridge/rotated_retinanet_oc": 36.35,
}
STAGES = {"native": (1, 18, 0.0025), "down2": (2, 12, 0.0025), "down4": (4, 6, 0.001), "down8": (8, 4, 0.001)}
STAGES["down16"] = (16, 2, 0.001)


@pytest.fixture(autouse=True)
def scope():
    """mmrotate's heads look their parts up by bare names."""
    with DefaultScope.overwrite_default_scope("mmrotate"):
        yield


def recipe(name):
    cfg = load_config(str(REPOSITORY / "configs" / f"{name}.py"), {})
    drop_initial_weights(cfg)
    return cfg


def test_no_recipe_is_forgotten():
    found = {
        f"{folder}/{file.stem}"
        for folder in ("hbd_net", "glh_bridge")
        for file in (REPOSITORY / "configs" / folder).glob("*.py")
    }
    assert found | {"hbd_net"} == SIZES.keys()


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    with torch.device("meta"):
        model = MODELS.build(recipe(name).model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(SIZES[name], abs=0.005)


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_the_released_ones(name):
    factor, epochs, rate = STAGES[name]
    cfg = recipe(f"hbd_net/{name}")
    assert (cfg.train_cfg.max_epochs, cfg.optim_wrapper.optimizer.lr) == (epochs, rate)
    folder = "native" if factor == 1 else f"down{factor}"
    assert cfg.train_dataloader.dataset.ann_file == f"train/{folder}/annfiles/"
    assert cfg.train_dataloader.dataset.data_prefix.img_path == f"train/{folder}/images/"
    assert tuple(cfg.test_dataloader.dataset.factors) == (factor,)
    assert (cfg.model.roi_head.bbox_head.type is ShapeSensitiveBBoxHead) == (factor > 1)
    before = list(STAGES)[list(STAGES).index(name) - 1]
    if factor == 1:
        assert cfg.load_from is None
    else:
        assert cfg.load_from == f"work_dirs/hbd_net/{before}/epoch_{STAGES[before][1]}.pth"


def test_numbers_of_the_released_recipe():
    cfg = recipe("hbd_net")
    assert cfg.train_dataloader.dataset.type is GLHBridgeWithContext
    assert cfg.test_dataloader.dataset.type is GLHBridgePyramid
    assert cfg.test_dataloader.dataset.factors is None
    assert (cfg.train_dataloader.batch_size, cfg.train_cfg.max_epochs) == (2, 24)
    assert cfg.param_scheduler[1].milestones == [16, 22]
    assert cfg.train_dataloader.dataset.context_threshold == 300
    flip = next(step for step in cfg.train_dataloader.dataset.pipeline if step["type"] is RandomFlipWithContext)
    assert flip["prob"] == [0.25, 0.25, 0.25]
    model = cfg.model
    for head in (model.roi_head, model.global_roi_head):
        assert head.bbox_roi_extractor.finest_scale == 16
        assert head.bbox_head.num_classes == 1
    assert model.global_roi_head.bbox_head.type is ShapeSensitiveBBoxHead
    assert model.roi_head.bbox_head.type is not ShapeSensitiveBBoxHead
    assert (model.test_cfg.rcnn.nms.iou_threshold, model.test_cfg.rcnn.score_thr) == (0.4, 0.05)
    assert model.test_cfg.rcnn.max_per_img == 400
    assert recipe("glh_bridge/oriented_rcnn").train_dataloader.dataset.type is GLHBridge


@pytest.mark.parametrize("name", [name for name in SIZES if name.startswith("glh_bridge")])
def test_baselines_take_a_step(name):
    cfg = recipe(name).model
    cfg.backbone.update(base_channels=8, frozen_stages=-1)
    cfg.neck.in_channels = [32, 64, 128, 256]
    model = MODELS.build(cfg).train()
    boxes = RotatedBoxes(torch.tensor([[60.0, 60, 70, 16, 0.4], [30, 100, 24, 10, -0.2]]))
    if name.endswith("reppoints"):
        boxes = QuadriBoxes(rbox2qbox(boxes.tensor))
    sample = DetDataSample(metainfo=dict(img_shape=(128, 128), ori_shape=(128, 128), scale_factor=(1.0, 1.0)))
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(2, dtype=torch.long))
    sample.ignored_instances = InstanceData(bboxes=boxes[:0], labels=torch.zeros(0, dtype=torch.long))
    data = dict(inputs=[torch.randint(0, 255, (3, 128, 128), dtype=torch.uint8)], data_samples=[sample])
    total, _ = model.parse_losses(model.forward(**model.data_preprocessor(data, True), mode="loss"))
    total.backward()
    assert 0 < total.item() < 1e4
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
