"""ARC-ResNet: sizes and keys of the published models, and the converter."""

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from perception.engine.config import drop_initial_weights, load_config
from perception.engine.errors import UserError
from projects.arc import converter
from projects.arc.backbone import ARCResNet
from projects.arc.conv import AdaptiveRotatedConv2d
from tests.conftest import REPOSITORY

SMALL = dict(base_channels=8, kernel_number=2, stem_channels=8)


@pytest.mark.parametrize(
    ("depth", "number", "expected"),
    [(50, 1, 23_554_637), (50, 2, 34_768_474), (50, 4, 57_196_148), (50, 6, 79_623_822), (101, 4, 106_352_056)],
)
def test_published_sizes(depth, number, expected):
    with torch.device("meta"):
        model = ARCResNet(depth, kernel_number=number)
    assert sum(p.numel() for p in model.parameters()) == expected


def test_published_keys():
    with torch.device("meta"):
        model = ARCResNet(50)
    keys = list(model.state_dict())
    assert len(keys) == 396
    assert sum(".routing." in key for key in keys) == 78
    assert not any(".routing." in key for key in keys if key.startswith("layer1"))


def test_trains_like_a_resnet():
    model = MODELS.build(dict(type="mmdet.ARCResNet", depth=50, frozen_stages=1, norm_eval=True, **SMALL))
    model.init_weights()
    plain = ResNet(50, base_channels=8, stem_channels=8)
    x = torch.randn(2, 3, 64, 96)
    model.train()
    outputs = model(x)
    assert [y.shape for y in outputs] == [y.shape for y in plain(x)]
    sum(y.square().mean() for y in outputs).backward()
    assert all(p.grad is None for p in model.layer1.parameters())
    kernels = [m.weight for m in model.modules() if isinstance(m, AdaptiveRotatedConv2d)]
    assert len(kernels) == 13
    # bn3 starts at 0: the first gradients reach only it and what follows a block.
    assert model.layer4[2].bn3.weight.grad.abs().sum() > 0
    model = ARCResNet(50, zero_init_residual=False, with_cp=True, **SMALL)
    model.train()
    sum(y.square().mean() for y in model(x.requires_grad_())).backward()
    assert all(m.weight.grad.abs().sum() > 0 for m in model.modules() if isinstance(m, AdaptiveRotatedConv2d))


def test_initial_weights_keep_the_rotated_kernels():
    model = ARCResNet(50, **SMALL)
    before = model.layer2[0].conv2.weight.clone()
    depthwise = model.layer2[0].conv2.routing.dwc.weight.clone()
    model.init_weights()
    assert torch.equal(model.layer2[0].conv2.weight, before)
    assert not torch.equal(model.layer2[0].conv2.routing.dwc.weight, depthwise)  # an nn.Conv2d like any other
    assert not model.layer2[0].bn3.weight.any()


def test_blocks_are_chosen_by_number_or_by_text():
    model = ARCResNet(50, replace=(["x"], ["0", "2"], [1], None), **SMALL)
    chosen = [
        [i for i, block in enumerate(getattr(model, name)) if isinstance(block.conv2, AdaptiveRotatedConv2d)]
        for name in model.res_layers
    ]
    assert chosen == [[], [0, 2], [1], [0, 1, 2]]
    with pytest.raises(ValueError, match="stage 1 has blocks 0 to 3, but replace names 4"):
        ARCResNet(50, replace=((), [4], (), ()), **SMALL)
    with pytest.raises(ValueError, match="replace must name blocks of 4 stages, got 2"):
        ARCResNet(50, replace=((), ()), **SMALL)
    with pytest.raises(ValueError, match="depth of 18"):
        ARCResNet(18)


def authors_names(state):
    return {
        key.replace("routing.norm", "rounting_func.norm.norm").replace("routing", "rounting_func"): value.clone()
        for key, value in state.items()
    }


@pytest.fixture(scope="module")
def detector():
    """The recipe's detector, small."""
    pyramid = {"neck.in_channels": [32, 64, 128, 256], "neck.out_channels": 16, "rpn_head.in_channels": 16}
    heads = {
        "rpn_head.feat_channels": 24,
        "roi_head.bbox_roi_extractor.out_channels": 16,
        "roi_head.bbox_head.in_channels": 16,
        "roi_head.bbox_head.fc_out_channels": 32,
    }
    backbone = {f"backbone.{key}": value for key, value in SMALL.items()}
    options = {f"model.{key}": value for key, value in {**backbone, **pyramid, **heads}.items()}
    cfg = load_config(str(REPOSITORY / "configs" / "arc.py"), options)
    drop_initial_weights(cfg)
    with DefaultScope.overwrite_default_scope("mmrotate"):
        return MODELS.build(cfg.model)


def test_a_detector_is_converted_there_and_back(detector):
    theirs = authors_names(detector.state_dict())
    ours = converter.to_perception({"state_dict": theirs})
    assert not ours.unmatched
    assert (ours.description, ours.num_classes) == ("ARC detector", 15)
    state = ours.checkpoint["state_dict"]
    detector.load_state_dict(state)
    head = "roi_head.bbox_head.fc_reg"
    sign = torch.tensor([1.0, 1, 1, 1, -1])
    assert torch.equal(state[f"{head}.bias"], theirs[f"{head}.bias"] * sign)
    assert torch.equal(state[f"{head}.weight"], theirs[f"{head}.weight"] * sign[:, None])
    back = converter.to_authors(ours.checkpoint).checkpoint["state_dict"]
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.items())


def test_classes_come_along(detector):
    theirs = authors_names(detector.state_dict())
    assert "meta" not in converter.to_perception({"state_dict": theirs}).checkpoint
    names = tuple(f"class {number}" for number in range(15))
    ours = converter.to_perception({"state_dict": theirs, "meta": {"CLASSES": names, "epoch": 12}})
    assert ours.checkpoint["meta"] == {"dataset_meta": {"classes": names}}
    assert converter.to_authors(ours.checkpoint).checkpoint["meta"] == {"CLASSES": names}
    other = list(reversed(names))
    ours.name_classes(other)
    assert ours.checkpoint["meta"]["dataset_meta"]["classes"] == tuple(other)
    with pytest.raises(UserError, match="tells 15 classes apart, but 2 names"):
        ours.name_classes(["a", "b"])
    bare = converter.to_perception(authors_names(ARCResNet(50, **SMALL).state_dict()))
    with pytest.raises(UserError, match="have no classes to name"):
        bare.name_classes(names)


def test_files_that_do_not_hold_all_of_it_are_refused(detector):
    theirs = authors_names(detector.state_dict())
    for gone in ("neck.fpn_convs.2", "roi_head.bbox_head.fc_cls", "rpn_head.rpn_reg", "backbone.layer3.4.bn2"):
        part = {key: value for key, value in theirs.items() if not key.startswith(f"{gone}.")}
        with pytest.raises(UserError, match=f"does not hold an ARC model: .*{gone}"):
            converter.to_perception({"state_dict": part})
    few = {key: value for key, value in theirs.items() if ".layer2.0.conv2." in key}
    with pytest.raises(UserError, match="does not hold an ARC model"):
        converter.to_perception({"state_dict": {**few, "nonsense.weight": torch.zeros(1)}})
    some = {key: value for key, value in theirs.items() if ".bn3." not in key}
    with pytest.raises(UserError, match=r"64 weights are missing, such as backbone\.layer1\.0\.bn3\.weight"):
        converter.to_perception({"state_dict": {**some, "nonsense.weight": torch.zeros(1)}})
    assert converter.to_perception({**theirs, "nonsense.weight": torch.zeros(1)}).unmatched == ["nonsense.weight"]
    reshaped = {**theirs, "rpn_head.rpn_reg.weight": torch.zeros(15, 24, 1, 1)}
    with pytest.raises(UserError, match=r"has shape \(15, 24, 1, 1\) instead of \(18, 24, 1, 1\)"):
        converter.to_perception(reshaped)
    ours = converter.to_perception(theirs).checkpoint["state_dict"]
    del ours["roi_head.bbox_head.fc_reg.bias"]
    with pytest.raises(UserError, match=r"missing, such as roi_head\.bbox_head\.fc_reg\.bias"):
        converter.to_authors(ours)


@pytest.mark.parametrize(
    "options",
    [
        dict(depth=101, kernel_number=3),
        dict(depth=50, replace=((), ["1"], None), num_stages=3, strides=(1, 2, 2), dilations=(1, 1, 1)),
    ],
)
def test_backbones_of_other_sizes_are_understood(options):
    stages = options.get("num_stages", 4)
    model = ARCResNet(base_channels=4, stem_channels=12, out_indices=range(stages), **options)
    ours = converter.to_perception(authors_names(model.state_dict()))
    assert not ours.unmatched
    model.load_state_dict(ours.checkpoint["state_dict"])


def test_a_backbone_without_a_prefix_is_converted():
    model = ARCResNet(50, **SMALL)
    bare = authors_names(model.state_dict())
    bare["fc.weight"] = torch.zeros(10, 4)
    ours = converter.to_perception(bare)
    assert ours.description == "ARC backbone"
    missing = model.load_state_dict(ours.checkpoint["state_dict"], strict=False)
    assert not missing.missing_keys
    assert missing.unexpected_keys == ["fc.weight"]
    with pytest.raises(UserError, match="does not hold an ARC model"):
        converter.to_perception({"layer1.0.conv1.weight": torch.zeros(1)})


def test_the_authors_backbone_is_read_through_init_cfg(tmp_path):
    model = ARCResNet(50, **SMALL)
    bare = authors_names(model.state_dict())
    torch.save({"state_dict": {**bare, "fc.weight": torch.zeros(10, 4)}}, tmp_path / "arc.pth")
    init = dict(type="Pretrained", checkpoint=str(tmp_path / "arc.pth"))
    loaded = MODELS.build(dict(type="mmdet.ARCResNet", depth=50, init_cfg=init, **SMALL))
    loaded.init_weights()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    # Inside a detector the old names are refused: the sign of its angles would be wrong too.
    detector = torch.nn.Module()
    detector.backbone = ARCResNet(50, **SMALL)
    with pytest.raises(RuntimeError, match="rounting_func"):
        detector.load_state_dict({f"backbone.{key}": value for key, value in bare.items()})


def test_a_plain_resnet_becomes_a_start(monkeypatch):
    plain, model = ResNet(50, base_channels=8, stem_channels=8), ARCResNet(50, base_channels=8, stem_channels=8)
    plain.eval()
    model.eval()
    weights = {**plain.state_dict(), "fc.weight": torch.zeros(10, 256)}
    start = converter.to_perception(weights)
    assert start.description == "start for an ARC backbone from a plain ResNet, its 3x3 kernels in 4 copies"
    report = model.load_state_dict(start.checkpoint["state_dict"], strict=False)
    assert report.unexpected_keys == ["fc.weight"]
    assert all(".routing." in key for key in report.missing_keys)
    x = torch.randn(2, 3, 64, 64)
    # As the routing starts: nearly the plain network. With gates of a half and no rotation: exactly.
    for ours, theirs in zip(model(x), plain(x)):
        torch.testing.assert_close(ours, theirs, atol=0.1 * theirs.abs().max().item(), rtol=0)
    half = lambda routing, x: (x.new_full((len(x), 4), 0.5), x.new_zeros(len(x), 4))  # noqa: E731
    monkeypatch.setattr("projects.arc.routing.RoutingFunction.forward", half)
    for ours, theirs in zip(model(x), plain(x)):
        torch.testing.assert_close(ours, theirs, atol=1e-4 * theirs.abs().max().item(), rtol=1e-4)
    assert converter.inflate(weights, 6)["layer2.0.conv2.weight"].shape == (6, 16, 16, 3, 3)
    with pytest.raises(UserError, match="weights of a plain ResNet; make a start"):
        model.load_state_dict(weights, strict=False)
    with pytest.raises(UserError, match="does not hold an ARC model"):
        converter.to_perception({"layer2.0.conv2.weight": torch.zeros(8, 8, 3, 3)})  # a ResNet-18 or 34
    assert converter.to_perception({**weights, "nonsense.weight": torch.zeros(1)}).unmatched == ["nonsense.weight"]
    part = {key: value for key, value in weights.items() if ".downsample.0." not in key}
    with pytest.raises(UserError, match="does not hold a ResNet model: 4 weights are missing"):
        converter.to_perception(part)
