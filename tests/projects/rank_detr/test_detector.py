"""Rank-DETR as an mmdet detector."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmdet.apis import DetInferencer
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch.testing import assert_close

from perception.engine.config import load_config
from projects.rank_detr.detector import padding_mask

from .demo import TINY, tiny_config

CONFIG = "configs/demo/rank_detr.py"


@pytest.fixture
def detector():
    """A tiny detector whose predictions depend on the image."""
    model = MODELS.build(load_config(CONFIG, TINY).model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


def sample(height: int, width: int, scale: float = 1.0) -> dict:
    generator = torch.Generator().manual_seed(height * width)
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    meta = dict(
        img_shape=(height, width), ori_shape=(round(height / scale), round(width / scale)), scale_factor=(scale, scale)
    )
    return dict(inputs=image, data_samples=DetDataSample(metainfo=meta))


def batch(*samples: dict) -> dict:
    return {key: [s[key] for s in samples] for key in ("inputs", "data_samples")}


def test_predictions_do_not_depend_on_the_batch(detector):
    samples = [sample(96, 128), sample(96, 128), sample(96, 128)]
    samples[1]["inputs"] = samples[1]["inputs"].flip(-1)
    samples[2]["inputs"] = 255 - samples[2]["inputs"]
    together = detector.test_step(batch(*samples))
    for one, joint in zip(samples, together):
        alone = detector.test_step(batch(one))[0].pred_instances
        joint = joint.pred_instances
        assert_close(joint.scores, alone.scores, atol=1e-5, rtol=0)
        assert_close(joint.bboxes, alone.bboxes, atol=1e-2, rtol=1e-4)
        assert torch.equal(joint.labels, alone.labels)


def test_padding_is_masked(detector):
    data = detector.data_preprocessor(batch(sample(96, 128), sample(64, 96)))
    mask = padding_mask(data["inputs"], data["data_samples"])
    assert mask.shape == (2, 96, 128)
    assert not mask[0].any()
    assert not mask[1, :64, :96].any()
    assert mask[1, 64:].all()
    assert mask[1, :, 96:].all()
    # What the neck computed over padding reaches neither boxes nor scores.
    feats = list(detector.extract_feat(data["inputs"]))
    masks = [F.interpolate(mask[None], size=feat.shape[-2:])[0].bool() for feat in feats]
    other = [feat.masked_fill(m[:, None], 7.0) for feat, m in zip(feats, masks)]
    one, two = (detector.transformer(f, masks, detector.bbox_head) for f in (feats, other))
    assert_close(one.logits, two.logits)
    assert_close(one.boxes, two.boxes)


def test_detections_are_clipped_pixels_of_the_original_image(detector):
    result = detector.test_step(batch(sample(96, 128, scale=0.5)))[0].pred_instances
    queries, classes = TINY["model.transformer.num_queries_one2one"], 6
    assert len(result) <= min(100, queries * classes)
    assert (result.scores.diff() <= 0).all()
    assert (result.bboxes >= 0).all()
    assert (result.bboxes[:, 2] <= 256).all()
    assert (result.bboxes[:, 3] <= 192).all()
    assert ((result.bboxes[:, 2:] - result.bboxes[:, :2]) > 0).all()
    data = detector.data_preprocessor(batch(sample(96, 128, scale=0.5)))
    scaled = detector.predict(data["inputs"], data["data_samples"], rescale=False)[0].pred_instances
    assert_close(scaled.bboxes * 2, result.bboxes, atol=1e-3, rtol=0)
    logits, boxes = detector(data["inputs"], data["data_samples"], mode="tensor")
    best = logits[-1, 0].sigmoid().max()
    assert_close(result.scores[0], best)
    assert boxes.shape == (3, 1, queries, 4)


def test_loss_terms_and_normalised_targets(detector):
    detector.train()
    samples = [sample(96, 128), sample(128, 80)]
    for one in samples:
        one["data_samples"].gt_instances = InstanceData(
            bboxes=torch.tensor([[10.0, 20.0, 40.0, 60.0]]), labels=torch.tensor([2])
        )
    data = detector.data_preprocessor(batch(*samples), training=True)
    losses = detector.loss(data["inputs"], data["data_samples"])
    assert len(losses) == 3 * (3 + 1 + 3)
    total, log = detector.parse_losses(losses)
    assert_close(total, sum(losses.values()))
    total.backward()
    unused = [name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None]
    assert unused == []
    assert log.keys() == {"loss", *losses}


@pytest.mark.parametrize(
    ("design", "off"),
    [
        ("model.transformer.query_rank_layer", False),
        ("model.bbox_head.rank_adaptive_classhead", False),
        ("model.criterion.giou_aware_class_loss", False),
        ("model.criterion.matcher.change_iter", None),
    ],
)
def test_each_design_can_be_switched_off(design, off):
    model = MODELS.build(load_config(CONFIG, {**TINY, design: off}).model)
    keys = "".join(model.state_dict())
    assert ("rank_aware_content_query" in keys) == (design != "model.transformer.query_rank_layer")
    assert ("rank_adaptive_classhead_emb" in keys) == (design != "model.bbox_head.rank_adaptive_classhead")
    assert model.criterion.giou_aware_class_loss == (design != "model.criterion.giou_aware_class_loss")
    assert (model.criterion.matcher.change_iter is None) == (design == "model.criterion.matcher.change_iter")
    assert model.test_step(batch(sample(64, 64)))[0].pred_instances.scores.isfinite().all()


RECIPES = {
    "rank_detr.py": (90_000, [82_500], 67_500),
    "rank_detr/r50_36e.py": (270_000, [225_000], 202_500),
    "rank_detr/swin_t_12e.py": (90_000, [82_500], 67_500),
    "rank_detr/swin_t_36e.py": (270_000, [225_000], 202_500),
    "rank_detr/swin_l_12e.py": (90_000, [82_500], 67_500),
    "rank_detr/swin_l_36e.py": (270_000, [225_000], 202_500),
    "rank_detr/r50_h_deformable_detr.py": (90_000, [82_500], None),
    "rank_detr/r50_no_high_order_cost.py": (90_000, [82_500], None),
    "rank_detr/r50_no_giou_aware_loss.py": (90_000, [82_500], 67_500),
    "rank_detr/r50_no_query_rank_layer.py": (90_000, [82_500], 67_500),
    "rank_detr/r50_no_rank_adaptive_head.py": (90_000, [82_500], 67_500),
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_recipes_state_the_published_numbers(recipe):
    max_iters, milestones, change_iter = RECIPES[recipe]
    cfg = load_config(f"configs/{recipe}")
    assert cfg.train_cfg.max_iters == cfg.param_scheduler[0].end == max_iters
    assert cfg.param_scheduler[0].milestones == milestones
    assert cfg.model.criterion.matcher.change_iter == change_iter
    assert cfg.optim_wrapper.optimizer.lr == 2e-4
    assert cfg.optim_wrapper.clip_grad.max_norm == 0.1
    assert cfg.model.transformer.get("checkpointing", False) == ("swin" in recipe)
    if "swin" in recipe:
        assert cfg.model.backbone.drop_path_rate == (0.5 if recipe == "rank_detr/swin_l_36e.py" else 0.2)


@pytest.mark.parametrize("recipe", ["rank_detr.py", "rank_detr/swin_t_12e.py"])
def test_full_size_models_predict(recipe):
    model = MODELS.build(load_config(f"configs/{recipe}", {"model.backbone.init_cfg": None}).model).eval()
    beyond_backbone = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("backbone."))
    narrower = (512 + 1024 + 2048 - 192 - 384 - 768) * 256 + 9 * (2048 - 768) * 256  # in the neck
    assert beyond_backbone == 28_624_972 - ("swin" in recipe) * narrower
    result = model.test_step(batch(sample(128, 160)))[0].pred_instances
    assert 0 < len(result) <= 300


def test_only_the_stem_of_the_recipe_backbone_is_frozen():
    backbone = MODELS.build(load_config("configs/rank_detr.py", {"model.backbone.init_cfg": None}).model).backbone
    backbone.train()
    frozen = {name for name, p in backbone.named_parameters() if not p.requires_grad}
    norms = {name for name in frozen if ".bn" in name or "downsample.1" in name}
    assert frozen - norms == {"conv1.weight", "bn1.weight", "bn1.bias"}
    assert not backbone.layer1[0].bn1.training


def test_stock_inferencer_runs_it(tmp_path, shapes_folder):
    cfg = tiny_config(shapes_folder, tmp_path)
    # It looks for the stock loader by name, as docs/data.md says.
    cfg.test_dataloader.dataset.pipeline[0] = dict(type="LoadImageFromFile")
    path = tmp_path / "config.py"
    cfg.dump(path)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    torch.save({"state_dict": model.state_dict(), "meta": {"dataset_meta": dict(cfg.metainfo)}}, tmp_path / "w.pth")
    inferencer = DetInferencer(str(path), str(tmp_path / "w.pth"), device="cpu")
    image = np.zeros((100, 120, 3), np.uint8)
    result = inferencer(image, show=False, no_save_vis=True, print_result=False)["predictions"][0]
    assert len(result["scores"]) == len(result["bboxes"]) > 0
