"""HBD-Net's box head in mmdet, and the three layouts of published checkpoints."""

import pytest
import torch
from mmdet.models.task_modules.assigners import AssignResult
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope
from mmrotate.structures.bbox import RotatedBoxes
from torch.testing import assert_close

from perception.engine.config import drop_initial_weights, load_config
from perception.engine.errors import UserError
from perception.geometry.rotated_boxes import as_le90
from projects.hbd_net.converter import GLOBAL, to_authors, to_perception
from projects.hbd_net.fusion import InterLevelFusion
from projects.hbd_net.head import ShapeSensitiveBBoxHead
from tests.conftest import REPOSITORY

from .test_core import SSRW

# -------------------------------------------------------------------------------------------------------------- head


def head(**settings):
    return ShapeSensitiveBBoxHead(
        in_channels=4,
        fc_out_channels=8,
        roi_feat_size=2,
        num_classes=1,
        predict_box_type="rbox",
        reg_class_agnostic=True,
        bbox_coder=dict(
            type="mmrotate.DeltaXYWHTRBBoxCoder",
            angle_version="le90",
            norm_factor=None,
            edge_swap=True,
            proj_xy=True,
            target_means=(0.0,) * 5,
            target_stds=(0.1, 0.1, 0.2, 0.2, 0.1),
        ),
        **settings,
    )


def targets(module, objects=SSRW["inputs"]["gt_bboxes"]):
    """Of the recorded positives and three negatives."""
    proposals = SSRW["inputs"]["pos_bboxes"]
    numbers = torch.cat([torch.arange(1, 49), torch.zeros(3, dtype=torch.long)])
    assigned = AssignResult(48, numbers, torch.ones(51), torch.zeros(51, dtype=torch.long))
    sampled = SamplingResult(
        pos_inds=torch.arange(48),
        neg_inds=torch.arange(48, 51),
        priors=RotatedBoxes(torch.cat([proposals, proposals[:3]])),
        gt_bboxes=RotatedBoxes(objects),
        assign_result=assigned,
        gt_flags=torch.zeros(51, dtype=torch.uint8),
    )
    return module.get_targets([sampled], ConfigDict(pos_weight=-1))


@pytest.mark.parametrize("ratio", ["h_over_w", "long_short"])
def test_targets_of_the_head_are_the_recorded_ones(ratio):
    with DefaultScope.overwrite_default_scope("mmdet"):
        labels, label_weights, _, weights = targets(head(ratio=ratio))
    recorded = SSRW["outputs"]
    assert labels.tolist() == recorded["labels"].tolist()
    assert_close(label_weights, recorded["label_weights"])
    expected = recorded["released_bbox_weights"].clone()
    if ratio == "long_short":
        expected[:48] = recorded["orientation_free_long_over_short"][:, None]
    assert_close(weights, expected, atol=1e-5, rtol=1e-5)


def test_head_takes_any_frame_of_angles():
    """The released ratio is one of boxes with angles in (0, pi/2], whichever frame the data set has."""
    upright = SSRW["inputs"]["gt_bboxes"]
    other = as_le90(upright)
    assert not torch.equal(other, upright)
    with DefaultScope.overwrite_default_scope("mmdet"):
        module = head(ratio="h_over_w", scale=0.6)
        weights = targets(module, other)[3]
    assert_close(weights[:48, 0], 2 * SSRW["outputs"]["released_bbox_weights"][:48, 0], atol=1e-4, rtol=1e-4)


def test_other_ratios_are_refused():
    with pytest.raises(ValueError, match="'w_over_h'"), DefaultScope.overwrite_default_scope("mmdet"):
        head(ratio="w_over_h")


# --------------------------------------------------------------------------------------------------------- converter


def oriented_rcnn(seed=0, num_classes=1):
    """Weights of a small Oriented R-CNN with the settings of ARC's plain twin."""
    cfg = load_config(str(REPOSITORY / "configs" / "arc" / "r50_plain.py"), {})
    drop_initial_weights(cfg)
    model = cfg.model
    model.backbone.base_channels = 8
    model.neck.update(in_channels=[32, 64, 128, 256], out_channels=16)
    model.rpn_head.update(in_channels=16, feat_channels=16)
    model.roi_head.bbox_roi_extractor.out_channels = 16
    model.roi_head.bbox_head.update(in_channels=16, fc_out_channels=32, num_classes=num_classes)
    torch.manual_seed(seed)
    with DefaultScope.overwrite_default_scope("mmrotate"):
        return MODELS.build(model).state_dict()


LOCAL, REDUCED, OTHER = (oriented_rcnn(seed) for seed in range(3))
BOTH = {
    **LOCAL,
    **{f"{GLOBAL}{key}": value for key, value in REDUCED.items()},
    **InterLevelFusion(16).state_dict(prefix="fusion_convs."),
}


def levels(suffix, state):
    part = "{}_" + suffix + ".{}"
    return {part.format(*key.split(".", 1)): value for key, value in state.items()}


def same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)


def test_both_branches_there_and_back():
    ours = to_perception({"state_dict": {**BOTH, "stray": torch.zeros(1)}})  # the published file has no meta
    assert ours.unmatched == ["stray"]
    assert (ours.num_classes, ours.description) == (1, "both branches, with fusion")
    same(ours.checkpoint["state_dict"], BOTH)
    ours.name_classes(["bridge"])
    back = to_authors(ours.checkpoint)
    assert back.checkpoint["meta"] == {"CLASSES": ("bridge",)}
    same(back.checkpoint["state_dict"], BOTH)


@pytest.mark.parametrize("native", [LOCAL, levels("d1", LOCAL)], ids=["plain", "d1"])
def test_one_detector_for_each_level(native):
    file = {**native, **levels("d2", REDUCED), **levels("d4", OTHER)}
    least, chosen = to_perception(file), to_perception(file, level=4)
    assert least.description == "native detector and that of level 2, without fusion"
    same(least.checkpoint["state_dict"], {k: v for k, v in BOTH.items() if "fusion" not in k})
    assert set(least.unmatched) == set(levels("d4", OTHER))
    assert torch.equal(chosen.checkpoint["state_dict"]["global_backbone.conv1.weight"], OTHER["backbone.conv1.weight"])
    with pytest.raises(UserError, match="levels 2, 4, not of 8"):
        to_perception(file, level=8)
    with pytest.raises(UserError, match="does not hold"):
        to_perception(levels("d2", REDUCED))


def test_plain_detector_goes_into_both_branches():
    ours = to_perception({"state_dict": LOCAL, "meta": {"CLASSES": ("bridge",)}})
    assert ours.names_classes
    state = ours.checkpoint["state_dict"]
    assert len(state) == 2 * len(LOCAL)
    assert all(torch.equal(state[f"{GLOBAL}{key}"], state[key]) for key in LOCAL)


@pytest.mark.parametrize(
    "key",
    [
        "global_rpn_head.rpn_reg.bias",
        "roi_head.bbox_head.fc_reg.weight",
        "global_backbone.layer3.5.bn1.running_var",
        "fusion_convs.3.conv.bias",
    ],
)
def test_part_of_a_model_is_refused(key):
    for convert in (to_perception, to_authors):
        with pytest.raises(UserError, match=f"1 weights are missing, such as {key}"):
            convert({other: value for other, value in BOTH.items() if other != key})
        with pytest.raises(UserError, match=f"{key} has shape"):
            convert({**BOTH, key: torch.zeros(*BOTH[key].shape, 2)})


def test_other_models_are_refused():
    with pytest.raises(UserError, match="does not hold"):
        to_perception({"backbone.conv1.weight": torch.zeros(1)})
    with pytest.raises(UserError, match="does not hold"):
        to_authors(LOCAL)
    fewer = {f"{GLOBAL}{key}": value for key, value in oriented_rcnn(num_classes=2).items()}
    with pytest.raises(UserError, match=r"global_roi_head\.bbox_head\.fc_cls\.weight has shape"):
        to_perception({**LOCAL, **fewer})


def test_tool(run_tool, tmp_path):
    plain, ours, authors = (tmp_path / f"{name}.pth" for name in ("plain", "ours", "authors"))
    torch.save({"state_dict": LOCAL}, plain)
    done = run_tool("convert_checkpoint", "hbd_net", plain, ours, "--classes", "bridge")
    assert done.code == 0, done.err
    assert "plain Oriented R-CNN in both branches, without fusion" in done.out
    assert run_tool("convert_checkpoint", "hbd_net", ours, authors, "--to", "authors").code == 0
    assert len(torch.load(authors, weights_only=True)["state_dict"]) == 2 * len(LOCAL)
