"""Every recipe: its model is the published one, its settings are those of the spec, each detector takes a step."""

import copy

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from mmrotate.structures.bbox import QuadriBoxes, RotatedBoxes, rbbox_overlaps, rbox2qbox

from perception.engine.config import drop_initial_weights, load_config
from tests.conftest import REPOSITORY

# Millions of parameters. The first two are the published detectors'.
SIZES = {
    "arc": 75.05,
    "arc/r50_plain": 41.37,
    "arc/r101": 124.21,
    "arc/r101_plain": 60.36,
    "arc/r50_ms_rr": 75.05,
    "arc/r50_ms_rr_plain": 41.37,
    "arc/r50_dotav15": 75.05,
    "arc/r50_dotav15_plain": 41.37,
    "arc/r50_val": 75.05,
    "arc/r50_val_plain": 41.37,
    "arc/r50_hrsc": 75.04,
    "arc/r50_hrsc_plain": 41.35,
    "arc/retinanet_r50": 70.33,
    "arc/retinanet_r50_plain": 36.64,
    "arc/cfa_r50": 70.52,
    "arc/cfa_r50_plain": 36.83,
}


@pytest.fixture(autouse=True)
def scope():
    """mmrotate's CFA head looks its parts up by bare names."""
    with DefaultScope.overwrite_default_scope("mmrotate"):
        yield


def recipe(name, **options):
    return load_config(str(REPOSITORY / "configs" / f"{name}.py"), options)


def test_no_recipe_is_forgotten():
    folder = REPOSITORY / "configs" / "arc"
    assert {f"arc/{file.stem}" for file in folder.glob("[a-z]*.py")} | {"arc"} == SIZES.keys()


@pytest.mark.parametrize("name", SIZES)
def test_sizes(name):
    cfg = recipe(name)
    drop_initial_weights(cfg)
    with torch.device("meta"):
        model = MODELS.build(cfg.model)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(SIZES[name], abs=0.005)
    assert any(".routing." in key for key in model.state_dict()) is not name.endswith("_plain")


@pytest.mark.parametrize("name", [name for name in SIZES if name.endswith("_plain")])
def test_a_twin_differs_in_its_backbone_and_how_fast_that_learns(name):
    plain, arc = (recipe(n).to_dict() for n in (name, "arc" if name == "arc/r50_plain" else name[: -len("_plain")]))
    assert plain["model"].pop("backbone")["depth"] == arc["model"].pop("backbone")["depth"]
    assert "paramwise_cfg" not in plain["optim_wrapper"]
    assert arc["optim_wrapper"].pop("paramwise_cfg")["custom_keys"] == {"backbone": {"lr_mult": 0.5}}
    for key in ("work_dir", "plain_r50", "plain_r101"):
        plain.pop(key)
        arc.pop(key, None)
    assert plain == arc


def test_the_demo_and_its_twin():
    arc, plain = (MODELS.build(recipe(f"demo/{name}").model) for name in ("arc", "arc_plain"))
    rotated = {key for key in arc.state_dict() if ".routing." in key}
    assert arc.state_dict().keys() - rotated == plain.state_dict().keys()
    assert len(rotated) == 60  # six weights for each of the ten blocks of two stages


def test_schedule_of_the_published_recipe():
    cfg = recipe("arc")
    wrapper = cfg.optim_wrapper
    assert (wrapper.optimizer.lr, wrapper.optimizer.momentum, wrapper.optimizer.weight_decay) == (0.005, 0.9, 1e-4)
    assert wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0.5
    assert wrapper.clip_grad.max_norm == 35
    warm_up, steps = cfg.param_scheduler
    assert (warm_up.start_factor, warm_up.end, warm_up.by_epoch) == (0.001, 500, False)
    assert (steps.milestones, steps.gamma, steps.by_epoch) == ([8, 11], 0.1, True)
    assert cfg.train_cfg.max_epochs == 12
    hrsc = recipe("arc/r50_hrsc")
    assert (hrsc.train_cfg.max_epochs, hrsc.param_scheduler[1].milestones) == (36, [24, 33])
    turn = [step for step in recipe("arc/r50_ms_rr").train_dataloader.dataset.pipeline if "upright_labels" in step]
    assert turn[0].upright_labels == (9, 11)
    assert not any("upright_labels" in step for step in cfg.train_dataloader.dataset.pipeline)


def rotated_scene(count, size=128, kind=RotatedBoxes):
    """Images of long bright rectangles on noise; the colour is the class."""
    generator = torch.Generator().manual_seed(0)
    uniform = lambda low, high: low + (high - low) * torch.rand((), generator=generator)  # noqa: E731
    v, u = torch.meshgrid(*[torch.arange(size) + 0.5] * 2, indexing="ij")
    images, samples = torch.rand(count, 3, size, size, generator=generator) * 0.3, []
    for image in images:
        boxes, labels = [], []
        for corner in torch.randperm(4, generator=generator)[:3].tolist():
            cx, cy = (torch.tensor([corner % 2, corner // 2]) * size / 2 + uniform(0.2, 0.3) * size).tolist()
            w, h, angle, label = uniform(26, 48), uniform(10, 20), uniform(-1.5, 1.5), corner % 3
            x, y = (u - cx) * angle.cos() + (v - cy) * angle.sin(), (v - cy) * angle.cos() - (u - cx) * angle.sin()
            image[label][(x.abs() < w / 2) & (y.abs() < h / 2)] = 1.0
            boxes.append([cx, cy, w, h, angle])
            labels.append(label)
        sample = DetDataSample(metainfo=dict(img_shape=(size, size), ori_shape=(size, size), scale_factor=(1.0, 1.0)))
        sample.set_metainfo(dict(batch_input_shape=(size, size), pad_shape=(size, size)))
        boxes = torch.tensor(boxes)
        boxes = rbox2qbox(boxes) if kind is QuadriBoxes else boxes
        sample.gt_instances = InstanceData(bboxes=kind(boxes), labels=torch.tensor(labels))
        sample.ignored_instances = InstanceData(bboxes=kind(boxes[:0]), labels=torch.tensor(labels[:0]))
        samples.append(sample)
    return (images - 0.3) / 0.3, samples


TINY = {
    "model.backbone.init_cfg": None,
    "model.backbone.base_channels": 8,
    "model.backbone.stem_channels": 8,
    "model.backbone.frozen_stages": -1,
    "model.neck.in_channels": [32, 64, 128, 256],
    "model.neck.out_channels": 32,
}
TINY_RCNN = {
    **TINY,
    "model.rpn_head.in_channels": 32,
    "model.rpn_head.feat_channels": 32,
    "model.roi_head.bbox_roi_extractor.out_channels": 32,
    "model.roi_head.bbox_head.in_channels": 32,
    "model.roi_head.bbox_head.fc_out_channels": 64,
}
TINY_DENSE = {**TINY, "model.bbox_head.in_channels": 32, "model.bbox_head.feat_channels": 32}
FAMILIES = {
    "arc": TINY_RCNN,
    "arc/r50_plain": TINY_RCNN,
    "arc/retinanet_r50": TINY_DENSE,
    "arc/cfa_r50": {**TINY_DENSE, "model.bbox_head.point_feat_channels": 32},
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_detector_takes_a_step(name):
    torch.manual_seed(0)
    cfg = recipe(name, **FAMILIES[name])
    model = MODELS.build(cfg.model)
    model.init_weights()
    model.train()
    kind = QuadriBoxes if name.startswith("arc/cfa") else RotatedBoxes
    images, samples = rotated_scene(2, kind=kind)
    if kind is QuadriBoxes:  # as the data preprocessor hands them over
        for sample in samples:
            for part in (sample.gt_instances, sample.ignored_instances):
                part.bboxes = part.bboxes.tensor
    losses = model.loss(images, samples)
    total, values = model.parse_losses(losses)
    assert all(0 <= value < 100 for value in values.values()), values
    total.backward()
    reached = {key for key, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    if not name.endswith("_plain"):
        assert {"backbone.layer4.2.bn3.weight", "backbone.conv1.weight"} <= reached
    model.eval()
    with torch.no_grad():
        results = model.predict(images, samples, rescale=False)
    assert all(result.pred_instances.bboxes.shape[1] == 5 for result in results)


@pytest.mark.slow
def test_the_loss_falls():
    """Spec 10.10: Oriented R-CNN with a narrow ARC-ResNet on 8 images; the loss falls to less than a fifth."""
    torch.manual_seed(0)
    options = {
        **TINY_RCNN,
        "model.roi_head.bbox_head.num_classes": 3,
        "model.backbone.zero_init_residual": False,
        "model.backbone.norm_eval": False,
    }
    model = MODELS.build(recipe("arc", **options).model)
    model.init_weights()
    model.train()
    images, samples = rotated_scene(8)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    totals = []
    for iteration in range(120):
        chosen = [(2 * iteration + i) % 8 for i in range(2)]
        total = model.parse_losses(model.loss(images[chosen], [copy.deepcopy(samples[i]) for i in chosen]))[0]
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35)
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-8:]) / 8 < sum(totals[:4]) / 4 / 5
    model.eval()
    with torch.no_grad():
        results = model.predict(images, copy.deepcopy(samples), rescale=False)
    found: list[float] = []
    for result, sample in zip(results, samples):
        truth, boxes = sample.gt_instances, result.pred_instances[result.pred_instances.scores > 0.3]
        overlap = rbbox_overlaps(truth.bboxes.tensor, boxes.bboxes)
        found += (overlap * (truth.labels[:, None] == boxes.labels)).amax(1).tolist()
    assert sum(overlap > 0.5 for overlap in found) >= 8  # of 24: measured 15
