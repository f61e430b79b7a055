"""The two-branch detectors: sizes, what is fused, which branch detects, and that they learn."""

import math

import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, TASK_UTILS, init_default_scope
from mmrotate.structures.bbox import RotatedBoxes
from torch.testing import assert_close

from perception.engine.config import drop_initial_weights, load_config
from perception.engine.errors import UserError
from perception.geometry.rotated_boxes import as_le90, as_oc, box_corners
from perception.ops.box_iou_rotated import box_iou_rotated
from projects.hbd_net.context import ContextPreprocessor
from projects.hbd_net.converter import to_perception
from projects.hbd_net.frame import OpenCVFrameBoxCoder, OpenCVFrameRoIExtractor
from projects.hbd_net.stages import merge_stages
from tests.conftest import REPOSITORY

from .small import BRIDGE, SMALL, batch, crops, model, picture, sample

LOSSES = ("loss_rpn_cls", "loss_rpn_bbox", "loss_cls", "loss_bbox")

# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("config", "millions"),
    [("hbd_net", 94.499), ("hbd_net/merged", 82.701), ("hbd_net/native", 41.351), ("hbd_net/single_stage", 64.231)],
)
def test_published_sizes(config, millions):
    cfg = load_config(str(REPOSITORY / "configs" / f"{config}.py"), {})
    drop_initial_weights(cfg)
    init_default_scope("mmrotate")
    with torch.device("meta"):
        built = MODELS.build(cfg.model)
    assert sum(p.numel() for p in built.parameters()) / 1e6 == pytest.approx(millions, abs=1e-3)
    if config == "hbd_net":
        keys = built.state_dict()
        tops = {"backbone", "neck", "rpn_head", "roi_head"}
        assert {key.partition(".")[0] for key in keys} == tops | {f"global_{top}" for top in tops} | {"fusion_convs"}
        assert keys["roi_head.bbox_head.fc_cls.weight"].shape == (2, 1024)
        assert keys["global_roi_head.bbox_head.fc_reg.weight"].shape == (5, 1024)
        assert keys["rpn_head.rpn_reg.weight"].shape == (18, 256, 1, 1)
        levels = built.roi_head.bbox_roi_extractor[0] if isinstance(built.roi_head.bbox_roi_extractor, list) else None
        levels = levels or built.roi_head.bbox_roi_extractor
        rois = torch.tensor([[0, 0, 0, side, side, 0.0] for side in (20, 31, 33, 65, 130, 900)])
        expected = [min(max(math.floor(math.log2(side / 16 + 1e-6)), 0), 3) for side in (20, 31, 33, 65, 130, 900)]
        assert levels.map_roi_levels(rois, 4).tolist() == expected


# ------------------------------------------------------------------------------------------------------------ fusion


def test_only_maps_that_the_context_reaches_change():
    net = model().eval()
    data = net.data_preprocessor(batch())
    maps = net.features(data["inputs"])
    context = data["context"]
    assert context.factors == [2, 4]
    assert context.patches == [0, 0]
    context_maps = [x.detach().requires_grad_() for x in net.features(context.inputs, "global_")]
    fused = net._fused(maps, context_maps, context)
    assert [x.shape for x in fused] == [x.shape for x in maps]
    same = [[torch.equal(one[k], other[k]) for one, other in zip(fused, maps)] for k in (0, 1)]
    assert same == [[True, True, False, False, False], [True] * 5]
    sum(x.square().sum() for x in fused).backward()
    # P4 takes P3 of the half; P5 its P4, and P3 of the quarter; P6 its P5, and P4 of the quarter.
    reached = [[bool(x.grad[k].any()) for k in (0, 1)] if x.grad is not None else None for x in context_maps]
    assert reached == [None, [True, True], [True, True], [True, False], None]
    inside = context_maps[1].grad[0].abs().sum(0) > 0
    assert inside[8:24, 8:24].all()
    assert inside.sum() == 256


def test_context_of_any_size_is_where_it_was_after_padding():
    """A crop of 188 pixels is padded to 192: the patch's place moves with it."""
    data = batch(context=(None, (2,)))
    given = data["context"][1]
    small = type(given)([given.images[0][:, :188, :188]], [given.contexts[0]], given.samples)
    place = given.contexts[0]
    object.__setattr__(place, "inside", (40 / 188, 20 / 188, 168 / 188, 148 / 188))
    data["context"][1] = small
    prepared = model().data_preprocessor(data)["context"]
    assert prepared.inputs.shape[-2:] == (192, 192)
    assert prepared.patches == [1]
    assert prepared.inside[0] == pytest.approx((40 / 192, 20 / 192, 168 / 192, 148 / 192))


def test_without_context_the_second_branch_has_no_loss():
    net = model().train()
    found = net.loss(*[net.data_preprocessor(batch(context=None), True)[key] for key in ("inputs", "data_samples")])
    assert all(found[f"{name}_global"] == 0 for name in LOSSES)
    with pytest.raises(ValueError, match="batch_augments"):
        ContextPreprocessor(batch_augments=[dict(type="mmdet.BatchFixedSizePad", size=(64, 64))])


def test_batches_are_collated_with_and_without_context():
    one, other = batch()["context"]
    rows = [
        {"inputs": image, "data_samples": found, "context": context}
        for image, found, context in zip(*[batch()[key] for key in ("inputs", "data_samples")], (one, other))
    ]
    collated = pseudo_collate(rows)
    assert [context is None for context in collated["context"]] == [False, True]
    net = model().train()
    losses = net.forward(**net.data_preprocessor(collated, True), mode="loss")
    total, logged = net.parse_losses(losses)
    assert torch.isfinite(total)
    assert {*LOSSES, *(f"{name}_global" for name in LOSSES)} <= set(logged)


# --------------------------------------------------------------------------------------------------------- detection


def trained_apart():
    """A model of two branches that find different things, with few thresholds."""
    net = model("hbd_net/merged").eval()
    for head in (net.roi_head, net.global_roi_head):
        head.test_cfg.score_thr = 0.0
        head.test_cfg.max_per_img = 5
    return net


def test_factor_chooses_the_branch():
    net = trained_apart()
    image = picture([BRIDGE])

    def found(*factors):
        samples = [sample([BRIDGE], **({} if factor is None else {"factor": factor})) for factor in factors]
        return [one.pred_instances for one in net.test_step(dict(inputs=[image] * len(factors), data_samples=samples))]

    native, one, two, sixteen = found(None, 1, 2, 16)
    assert_close(native.scores, one.scores)
    assert_close(two.scores, sixteen.scores)
    assert not torch.allclose(native.scores, two.scores)
    alone = found(2)[0]
    assert_close(alone.scores, two.scores, atol=1e-6, rtol=1e-5)
    # Swapping the branches swaps what they find.
    state = net.state_dict()
    swapped = {
        key.removeprefix("global_") if key.startswith("global_") else f"global_{key}": value
        for key, value in state.items()
    }
    net.load_state_dict(swapped)
    assert_close(found(None)[0].scores, two.scores, atol=1e-6, rtol=1e-5)


def test_context_in_testing():
    net = model().eval()
    net.roi_head.test_cfg.score_thr = 0.0
    plain = batch(context=None)
    for one in plain["data_samples"]:
        one.set_metainfo({"factor": 1})
    fused = {**plain, "context": [crops(), None]}
    without, with_context = (net.test_step(dict(data)) for data in (plain, fused))
    scores = [[one.pred_instances.scores.clone() for one in found] for found in (without, with_context)]
    without, with_context = (net.test_step(dict(data)) for data in (plain, fused))
    assert_close(scores[0][1], scores[1][1])
    first = dict(inputs=picture([SMALL]), data_samples=sample([SMALL], factor=2), context=None)
    mixed = {key: [value, *fused[key]] for key, value in first.items()}
    last = net.test_step(mixed)[1].pred_instances.scores
    assert_close(last, scores[1][0], atol=1e-6, rtol=1e-4)
    with pytest.raises(ValueError, match="no fusion"):
        model("hbd_net/merged").eval().test_step(dict(fused))


# ------------------------------------------------------------------------------------------------------- oc of 0.x


def test_regions_are_pooled_along_the_side_that_opencv_names():
    """The same rectangle under any angle is pooled alike; mmrotate's extractor turns the grid with the angle."""
    settings = dict(
        roi_layer=dict(type="RoIAlignRotated", out_size=7, sample_num=2, clockwise=True),
        out_channels=4,
        featmap_strides=[4, 8],
        finest_scale=16,
    )
    extractor = OpenCVFrameRoIExtractor(**settings)
    maps = [torch.randn(1, 4, 32, 32), torch.randn(1, 4, 16, 16)]
    region = torch.tensor([[60.0, 50, 50, 20, 2.2]])  # in the frame: the height is at 2.2 - pi / 2
    assert_close(as_oc(region)[0, 2:], torch.tensor([20.0, 50, 2.2 - math.pi / 2]))
    other = torch.tensor([[60.0, 50, 20, 50, 2.2 - math.pi / 2], [60.0, 50, 50, 20, 2.2 - math.pi]])
    zero = torch.zeros(1, 1)
    pooled = [extractor(maps, torch.cat([zero, box[None]], 1)) for box in (region[0], *other)]
    assert_close(pooled[0], pooled[1], atol=1e-5, rtol=1e-4)
    assert_close(pooled[0], pooled[2], atol=1e-5, rtol=1e-4)
    plain = MODELS.build(dict(type="mmrotate.RotatedSingleRoIExtractor", **settings))
    assert_close(plain(maps, torch.cat([zero, other[:1]], 1)), pooled[0], atol=1e-5, rtol=1e-4)
    turned = plain(maps, torch.cat([zero, region], 1))
    assert_close(turned.rot90(-1, (2, 3)), pooled[0], atol=1e-4, rtol=1e-3)


def test_offsets_are_those_of_the_frame():
    coder = TASK_UTILS.build(
        dict(
            type="mmrotate.OpenCVFrameBoxCoder",
            angle_version="le90",
            edge_swap=True,
            proj_xy=True,
            target_stds=(0.1, 0.1, 0.2, 0.2, 0.1),
        )
    )
    assert isinstance(coder, OpenCVFrameBoxCoder)
    regions = as_le90(torch.rand(40, 5) * torch.tensor([200, 200, 90, 40, 3.0]) + 5)
    objects = regions + torch.randn(40, 5) * torch.tensor([3, 3, 2, 2, 0.1])
    offsets = coder.encode(RotatedBoxes(regions), RotatedBoxes(objects))
    assert_close(offsets, coder.encode(RotatedBoxes(as_oc(regions)), RotatedBoxes(objects)), atol=1e-3, rtol=1e-3)
    back = coder.decode(regions, offsets).tensor
    assert_close(box_iou_rotated(back, objects, aligned=True), torch.ones(40), atol=1e-3, rtol=0)
    # Angles are not wrapped: an object turned by 60 degrees more keeps its sides, one by 60 less does not.
    turned = torch.tensor([[50.0, 50, 40, 10, math.radians(75)], [50.0, 50, 40, 10, math.radians(15)]])
    wide, swapped = coder.encode(RotatedBoxes(turned.flip(0)), RotatedBoxes(turned))
    assert_close(wide, torch.tensor([0, 0, 0, 0, math.radians(60) / 0.1]), atol=1e-4, rtol=0)
    expected = torch.tensor([0, 0, -math.log(4) / 0.2, math.log(4) / 0.2, math.radians(30) / 0.1])
    assert_close(swapped, expected, atol=1e-4, rtol=0)
    # By the released formula: a step of a tenth of the framed width moves along the framed angle.
    step = torch.zeros(40, 5)
    step[:, 0] = 1
    framed = as_oc(regions)
    moved = coder.decode(regions, step).tensor[:, :2] - regions[:, :2]
    along = 0.1 * framed[:, 2, None] * torch.stack([framed[:, 4].cos(), framed[:, 4].sin()], 1)
    assert_close(moved, along, atol=1e-4, rtol=1e-4)


def test_recipe_for_published_weights():
    net = model("hbd_net/merged_oc")
    for head in (net.roi_head, net.global_roi_head):
        assert type(head.bbox_roi_extractor) is OpenCVFrameRoIExtractor
        assert type(head.bbox_head.bbox_coder) is OpenCVFrameBoxCoder
    assert net.global_roi_head.bbox_head.ratio == "h_over_w"
    assert net.roi_head.bbox_roi_extractor.finest_scale == 16
    assert net.global_roi_head.bbox_roi_extractor.finest_scale == 56
    assert model("hbd_net/merged").global_roi_head.bbox_roi_extractor.finest_scale == 16
    assert type(model("hbd_net/merged").roi_head.bbox_roi_extractor) is not OpenCVFrameRoIExtractor


# ------------------------------------------------------------------------------------------------------------ stages


def test_stages_become_two_branches():
    native, reduced = model("hbd_net/native", seed=1), model("hbd_net/down2", seed=2)
    files = [
        {"state_dict": net.state_dict(), "meta": {"dataset_meta": {"classes": ("bridge",)}}}
        for net in (native, reduced)
    ]
    merged = merge_stages(*files)
    net = model("hbd_net/merged")
    net.load_state_dict(merged["state_dict"])
    assert merged["meta"] == {"dataset_meta": {"classes": ("bridge",)}}
    assert torch.equal(net.neck.fpn_convs[1].conv.weight, native.neck.fpn_convs[1].conv.weight)
    assert torch.equal(net.global_neck.fpn_convs[1].conv.weight, reduced.neck.fpn_convs[1].conv.weight)
    # What each finds is what it found alone.
    net.eval(), native.eval(), reduced.eval()
    image = picture([BRIDGE])
    for alone, factor in ((native, 1), (reduced, 4)):
        data = [dict(inputs=[image], data_samples=[sample([BRIDGE], factor=factor)]) for _ in range(2)]
        for detector in (net, alone):
            heads = [getattr(detector, name) for name in ("roi_head", "global_roi_head") if hasattr(detector, name)]
            for head in heads:
                head.test_cfg.score_thr = 0.0
        found, expected = (one.test_step(some)[0].pred_instances for one, some in zip((net, alone), data))
        assert_close(found.scores, expected.scores)
    # The converter reads the merged file like one of the authors.
    with pytest.raises(UserError, match="as no ResNet does"):
        to_perception({key: value for key, value in merged["state_dict"].items() if "layer4" not in key})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda native, reduced: (native, merge_stages(native, reduced)), "the reduced checkpoint has two branches"),
        (
            lambda native, reduced: ({"state_dict": {"backbone.conv1.weight": torch.zeros(1)}}, reduced),
            "has no weights of neck",
        ),
        (
            lambda native, reduced: (native, {"state_dict": model("hbd_net/single_stage").state_dict()}),
            "has two branches",
        ),
        (
            lambda native, reduced: (native, {"state_dict": {**reduced["state_dict"], "mask_head.x": torch.zeros(1)}}),
            "no place for: mask_head",
        ),
        (
            lambda native, reduced: (
                native,
                {"state_dict": {k: v for k, v in reduced["state_dict"].items() if k != "rpn_head.rpn_cls.bias"}},
            ),
            "1 weights of the native one are not in the reduced one, such as rpn_head.rpn_cls.bias",
        ),
        (
            lambda native, reduced: (
                {"state_dict": {**native["state_dict"], "rpn_head.rpn_cls.bias": torch.zeros(4)}},
                reduced,
            ),
            r"rpn_head\.rpn_cls\.bias has shape \(4,\) in the native one and \(3,\)",
        ),
        (
            lambda native, reduced: (
                {**native, "meta": {"dataset_meta": {"classes": ("ship",)}}},
                {**reduced, "meta": {"CLASSES": ("bridge",)}},
            ),
            "different classes: ship; bridge",
        ),
    ],
    ids=["merged", "backbone", "two_branches", "mask", "part", "shape", "classes"],
)
def test_what_is_no_pair_of_stages_is_refused(change, message):
    files = [{"state_dict": model("hbd_net/native").state_dict()} for _ in range(2)]
    with pytest.raises(UserError, match=message):
        merge_stages(*change(*files))


def test_tool_merges(run_tool, tmp_path):
    native, reduced, out = (tmp_path / f"{name}.pth" for name in ("native", "reduced", "out"))
    for path, seed in ((native, 1), (reduced, 2)):
        torch.save({"state_dict": model("hbd_net/native", seed=seed).state_dict()}, path)
    done = run_tool("merge_stages", "--native", native, "--reduced", native, "--out", out)
    assert (done.code, "the same file" in done.err) == (1, True)
    done = run_tool("merge_stages", "--native", native, "--reduced", reduced, "--out", out)
    assert done.code == 0, done.err
    model("hbd_net/merged").load_state_dict(torch.load(out, weights_only=True)["state_dict"])
    before = out.read_bytes()
    assert "exists" in run_tool("merge_stages", "--native", native, "--reduced", reduced, "--out", out).err
    assert out.read_bytes() == before


# ---------------------------------------------------------------------------------------------------------- learning


def _steps(net, count, lr):
    """Trains; the rate falls over the second half."""
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2 * (1 - step / count)))
    history = []
    for _ in range(count):
        prepared = net.data_preprocessor(batch(), True)
        total, logged = net.parse_losses(net.forward(**prepared, mode="loss"))
        assert torch.isfinite(total)
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 35)
        optimizer.step()
        schedule.step()
        history.append({name: value.item() for name, value in logged.items()})
    return history


def test_overfits_two_patches():
    """All eight losses fall; every part gets a gradient, and the bridge that is longer than its patch is found whole.

    The boxes' losses begin near 0, as no region but the objects themselves is near an object.
    """
    net = model()
    history = _steps(net, 130, 2e-3)
    for name in (*LOSSES, *(f"{name}_global" for name in LOSSES)):
        means = [sum(step[name] for step in history[start : start + 10]) / 10 for start in range(0, 130, 10)]
        assert means[-1] < 0.8 * max(means), (name, means)
    unused = {name.rpartition(".")[0] for name, p in net.named_parameters() if p.grad is None}
    assert unused <= {f"fusion_convs.{k}.conv" for k in (2, 3, 4)}  # more maps than two reduced images have
    net.eval()
    data = batch()
    for one in data["data_samples"]:
        one.set_metainfo({"factor": 1})
    found = net.test_step(data)[0].pred_instances.bboxes
    best = as_le90(getattr(found, "tensor", found))[:1]
    assert box_iou_rotated(best, torch.tensor([BRIDGE]))[0, 0] > 0.5
    assert (box_corners(best)[0].amin(0) < 0).any()  # beyond the patch


def test_single_stage_trains_both_branches():
    net = model("hbd_net/single_stage")
    history = _steps(net, 6, 1e-3)
    names = [name for name in history[0] if "loss" in name and name != "loss"]
    once = ("loss_cls", "loss_bbox", "loss_centerness")
    assert sorted(names) == sorted(f"{name}{end}" for name in once for end in ("", "_global"))
    assert history[-1]["loss"] < history[0]["loss"]
    assert all(p.grad is not None for p in net.parameters())
    net.eval()
    samples = [sample([SMALL], factor=factor) for factor in (1, 8)]
    found = net.test_step(dict(inputs=[picture([SMALL])] * 2, data_samples=samples))
    assert all(len(one.pred_instances.scores) == len(one.pred_instances.bboxes) for one in found)
    with pytest.raises(ValueError, match="no fusion"):
        net.test_step(batch())
