"""ARC-ResNet: sizes and keys of the published models, and the converter."""

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS

from perception.engine.errors import UserError
from projects.arc import converter
from projects.arc.backbone import ARCResNet
from projects.arc.conv import AdaptiveRotatedConv2d

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


def authors_detector():
    model = ARCResNet(50, **SMALL)
    state = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    state = {
        key.replace("routing.norm", "rounting_func.norm.norm").replace("routing", "rounting_func"): value
        for key, value in state.items()
    }
    state["roi_head.bbox_head.fc_reg.weight"] = torch.randn(5, 7)
    state["roi_head.bbox_head.fc_reg.bias"] = torch.randn(5)
    return model, state


def test_a_detector_is_converted_there_and_back():
    model, theirs = authors_detector()
    ours = converter.to_perception({"state_dict": theirs})
    assert not ours.unmatched
    assert ours.description == "ARC detector"
    state = ours.checkpoint["state_dict"]
    backbone = {key.removeprefix("backbone."): v for key, v in state.items() if key.startswith("backbone.")}
    model.load_state_dict(backbone)
    sign = torch.tensor([1.0, 1, 1, 1, -1])
    assert torch.equal(state["roi_head.bbox_head.fc_reg.bias"], theirs["roi_head.bbox_head.fc_reg.bias"] * sign)
    weight = theirs["roi_head.bbox_head.fc_reg.weight"]
    assert torch.equal(state["roi_head.bbox_head.fc_reg.weight"], weight * sign[:, None])
    back = converter.to_authors(ours.checkpoint).checkpoint["state_dict"]
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.items())


def test_a_backbone_without_a_prefix_is_converted():
    model, theirs = authors_detector()
    bare = {key.removeprefix("backbone."): v for key, v in theirs.items() if key.startswith("backbone.")}
    bare["fc.weight"] = torch.zeros(10, 4)
    ours = converter.to_perception(bare)
    assert ours.description == "ARC backbone"
    missing = model.load_state_dict(ours.checkpoint["state_dict"], strict=False)
    assert not missing.missing_keys
    assert missing.unexpected_keys == ["fc.weight"]
    with pytest.raises(UserError, match="does not hold an ARC model"):
        converter.to_perception({"layer1.0.conv1.weight": torch.zeros(1)})


def test_the_authors_backbone_is_read_through_init_cfg(tmp_path):
    model, theirs = authors_detector()
    bare = {key.removeprefix("backbone."): v for key, v in theirs.items() if key.startswith("backbone.")}
    torch.save({"state_dict": {**bare, "fc.weight": torch.zeros(10, 4)}}, tmp_path / "arc.pth")
    init = dict(type="Pretrained", checkpoint=str(tmp_path / "arc.pth"))
    loaded = MODELS.build(dict(type="mmdet.ARCResNet", depth=50, init_cfg=init, **SMALL))
    loaded.init_weights()
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    # Inside a detector the old names are refused: the sign of its angles would be wrong too.
    detector = torch.nn.Module()
    detector.backbone = ARCResNet(50, **SMALL)
    with pytest.raises(RuntimeError, match="rounting_func"):
        detector.load_state_dict({key: v for key, v in theirs.items() if key.startswith("backbone.")})


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
