"""AdaFormer, the Siamese and the motion network: recorded numbers, published sizes, and the laws that define them."""

import copy
import math
import zlib
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from projects.adaformer.backbone import AdaFormer, AdaFormerBlock, DeformableGroupVectorAttention
from projects.adaformer.box_transforms import compose, into_frame, move_with, out_of_frame
from projects.adaformer.motion import MiniPointNet, MotionNetwork, SegAdaFormer, SegPointNet
from projects.adaformer.pointnet2 import PointNet2SSG
from projects.adaformer.siamese import P2BXCorr, SiameseNetwork

FOLDER = Path(__file__).parents[2] / "data" / "reference" / "adaformer"
TINY = {"dims": ((16, 16, 32), (32, 32, 64), (64, 64, 64)), "num_samples": 16, "num_neighbours": 8}


def load(name):
    return torch.load(FOLDER / f"{name}.pt", weights_only=True)


def count(module):
    return sum(p.numel() for p in module.parameters())


def cloud(points=40, width=24, batch=2, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, points, 3, generator=generator, dtype=dtype),
        torch.randn(batch, points, width, generator=generator, dtype=dtype),
    )


def attention(deform=True, dtype=torch.float32, trained=True):
    torch.manual_seed(0)
    module = DeformableGroupVectorAttention(24, 6, deform).to(dtype)
    if deform and trained:
        torch.nn.init.normal_(module.group_reg.fc2.weight, std=0.2)
    return module


# ---------------------------------------------------------------------------------------------------------- recorded


def test_recorded_attention():
    case = load("definition")["dgva"]
    module = DeformableGroupVectorAttention(24, 6)
    module.load_state_dict(case["state_dict"])
    x = case["x"].requires_grad_()
    y = module(case["p"], x)
    assert_close(y, case["y"], atol=1e-5, rtol=0)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    assert_close(x.grad, case["grad_x"], atol=1e-5, rtol=1e-4)
    assert_close(module.group_reg.fc2.weight.grad, case["grad_fc2"], atol=1e-5, rtol=1e-4)


def test_recorded_backbone():
    case = load("definition")["backbone"]
    backbone = AdaFormer(2, ((8, 8, 16), (16, 16, 24), (24, 24, 24)), num_samples=8, num_neighbours=6).eval()
    backbone.load_state_dict(case["state_dict"])
    levels = backbone(case["pc"], (48, 24, 12))
    assert_close(levels.xyz[-1], case["xyz"])
    assert_close(levels.features[-1], case["feat"], atol=1e-5, rtol=0)
    assert torch.equal(levels.indices[0].int(), case["idx0"])
    assert torch.equal(levels.kept.int(), case["idx0"][:, :12])


@pytest.mark.parametrize("training", [True, False])
def test_comparison_is_that_of_every_pair(training):
    """The first layer sees template points once; here it sees them beside every search point, as P2B states it."""
    torch.manual_seed(0)
    module = P2BXCorr(6, 8, 5).double().train(training)
    module.mlp.layer0.bn.bn.running_mean.uniform_(-0.5, 0.5)
    other = copy.deepcopy(module)
    template, search = torch.randn(2, 6, 4, dtype=torch.float64), torch.randn(2, 6, 9, dtype=torch.float64)
    xyz = torch.randn(2, 4, 3, dtype=torch.float64)
    likeness = torch.nn.functional.cosine_similarity(template[..., None], search[:, :, None], dim=1)
    described = torch.cat([xyz.mT, template], 1)[..., None].expand(-1, -1, -1, 9)
    expected = other.fea_layer(other.mlp(torch.cat([likeness[:, None], described], 1)).amax(2))
    found = module(template, search, xyz)
    assert_close(found, expected)
    for result in (found, expected):
        result.square().sum().backward()
    for one, another in zip(module.parameters(), other.parameters(), strict=True):
        assert_close(one.grad, another.grad, rtol=1e-6, atol=1e-9)


def test_recorded_p2b():
    """Weights are drawn for each key, as they were when the numbers were recorded."""
    case = load("p2b_forward")
    network = SiameseNetwork(PointNet2SSG()).eval()
    state = network.state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == case["state_dict_shapes"]
    network.load_state_dict({key: _drawn(key, value.shape) for key, value in state.items()})
    with torch.no_grad():
        output = network(case["inputs"]["template"], case["inputs"]["search"])
    expected = case["outputs"]
    assert_close(output.boxes, expected["estimation_boxes"], atol=1e-4, rtol=0)
    assert_close(output.targetness, expected["estimation_cla"], atol=1e-5, rtol=0)
    assert_close(output.votes, expected["vote_xyz"], atol=1e-5, rtol=0)
    assert_close(output.centres, expected["center_xyz"], atol=1e-5, rtol=0)
    box, score = output.best()
    place = expected["estimation_boxes"][0, :, 4].argmax()
    assert_close(box[0], expected["estimation_boxes"][0, place, :4], atol=1e-4, rtol=0)
    assert_close(score[0], expected["estimation_boxes"][0, place, 4], atol=1e-4, rtol=0)


def _drawn(key, shape):
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
    if key.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if key.endswith("running_var"):
        return 1 + 0.2 * drawn.abs()
    if key.endswith("running_mean"):
        return 0.1 * drawn
    if drawn.ndim == 1:
        return 1 + 0.1 * drawn if key.endswith(".weight") else 0.05 * drawn
    return drawn * math.sqrt(2 / math.prod(shape[1:]))


def test_recorded_box_transforms():
    case = load("tensor_transforms")["tensor_transforms"]
    reference, offset, points = case["ref"], case["offset"], case["points"]
    assert_close(compose(reference, offset), case["offset_box"], atol=1e-6, rtol=0)
    assert_close(move_with(points, reference, offset), case["offset_points"], atol=1e-6, rtol=0)
    assert_close(into_frame(points, reference), case["removed"], atol=1e-6, rtol=0)
    assert_close(out_of_frame(case["removed"], reference), points, atol=1e-5, rtol=0)


# ---------------------------------------------------------------------------------------------------------- sizes


def test_parameter_counts():
    backbone = AdaFormer()
    assert count(backbone) == 2_207_314
    assert [count(stage) for stage in backbone.stages] == [228_294, 923_526, 1_055_494]
    p2b, m2track = SiameseNetwork(PointNet2SSG()), MotionNetwork(SegPointNet())
    assert (count(p2b), len(p2b.state_dict())) == (1_339_977, 142)
    assert (count(m2track), len(m2track.state_dict())) == (2_238_105, 213)


def test_widths_and_units_of_the_comparison_and_the_votes_are_settings():
    network = SiameseNetwork(PointNet2SSG(normalize_xyz=True), 64, 32, 8, hidden_channels=48, normalize_xyz=True)
    state = network.state_dict()
    assert state["xcorr.mlp.layer0.conv.weight"].shape == (48, 68, 1, 1)
    assert state["xcorr.fea_layer.1.conv.weight"].shape == (64, 48, 1)
    plain = SiameseNetwork(PointNet2SSG(), 64, 32, 8, hidden_channels=48)
    plain.load_state_dict(state)
    points = torch.randn(1, 128, 3)
    for one, other in ((network.backbone, plain.backbone), (network.rpn, plain.rpn)):
        one.eval()
        other.eval()
        if one is network.rpn:
            inputs = torch.randn(1, 16, 3), torch.randn(1, 64, 16), torch.arange(16)[None]
            found, expected = one(*inputs).boxes, other(*inputs).boxes
        else:
            found, expected = (part(points, (64, 32, 16)).features[-1] for part in (one, other))
        assert not torch.allclose(found, expected)


def test_mocut_decodes_with_the_published_widths():
    segmenter = SegAdaFormer(AdaFormer(11))
    channels = [[tuple(layer.conv.weight.shape[:2]) for layer in module.mlp] for module in segmenter.decoder]
    assert channels == [[(256, 512), (256, 256)], [(256, 384), (128, 256)], [(128, 142), (128, 128)]]
    assert segmenter.fc.weight.shape == (11, 128, 1)


# ---------------------------------------------------------------------------------------------------------- laws


def test_groups_start_undeformed():
    points, x = cloud()
    module, plain = attention(trained=False), attention(deform=False)
    plain.load_state_dict(module.state_dict(), strict=False)
    assert_close(module(points, x), plain(points, x), atol=3e-3, rtol=0)
    module(points, x).square().sum().backward()
    assert module.group_reg.fc2.weight.grad.abs().max() > 1e-3


def test_blocks_may_start_as_identities():
    torch.manual_seed(0)
    backbone = AdaFormer(3, identity_blocks=True, **TINY).eval()
    options = {name: value for name, value in TINY.items() if name != "num_neighbours"}
    plain = PointNet2SSG(3, fps=True, **options).eval()
    for stage, module in zip(backbone.stages, plain.SA_modules, strict=True):
        module.mlps[0].load_state_dict(stage.sa.state_dict())
    points = torch.randn(2, 64, 6)
    found, expected = backbone(points, (32, 16, 8)), plain(points, (32, 16, 8))
    assert_close(found.features[-1], expected.features[-1], atol=1e-6, rtol=1e-6)
    found.features[-1].square().sum().backward()
    assert all(stage.block.attn.proj.weight.grad.abs().max() > 0 for stage in backbone.stages)


def test_likeness_may_count_more_at_the_start():
    weights = []
    for gain in (1.0, 30.0):
        torch.manual_seed(0)
        weights.append(SiameseNetwork(PointNet2SSG(), likeness_gain=gain).xcorr.mlp[0].conv.weight.detach())
    assert_close(weights[1][:, 0], 30 * weights[0][:, 0])
    assert_close(weights[1][:, 1:], weights[0][:, 1:])


def test_attention_does_not_depend_on_order_or_place():
    points, x = cloud()
    module = attention()
    expected = module(points, x)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    assert_close(module(points[:, order], x[:, order]), expected[:, order], atol=2e-6, rtol=0)
    assert_close(module(points + torch.tensor([0.5, -0.25, 0.125]), x), expected, atol=2e-5, rtol=0)


def test_gradient_of_attention():
    points, x = cloud(12, dtype=torch.float64, batch=1)
    module = attention(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: module(points, x), x.requires_grad_(), fast_mode=True)


@pytest.mark.parametrize("options", [{"deform": False}, {"attention": "fp"}])
def test_ablations_have_no_group_regression(options):
    block = AdaFormerBlock(24, 6, **options)
    assert not any("group_reg" in name for name, _ in block.named_parameters())
    points, x = cloud()
    moved = x.clone()
    moved[:, 1:] *= -1
    assert not torch.allclose(block(points, x)[:, 0], block(points, moved)[:, 0])  # points still see each other
    with pytest.raises(ValueError, match="attention is"):
        AdaFormerBlock(24, attention="dot")


def test_a_batch_is_its_items():
    torch.manual_seed(0)
    network = SiameseNetwork(AdaFormer(3, **TINY), 64, 64, 16).eval()
    template, search = torch.randn(3, 64, 6), torch.randn(3, 128, 6)
    together = network(template, search)
    for i in range(3):
        alone = network(template[i : i + 1], search[i : i + 1])
        assert_close(together.boxes[i], alone.boxes[0], atol=1e-5, rtol=0)
    motion = MotionNetwork(SegAdaFormer(AdaFormer(11, **TINY), decoder=((64, 64), (64, 32), (32, 32)))).eval()
    points, boxes = torch.randn(3, 64, 5), torch.rand(3, 64, 9)
    together = motion(points, boxes)
    for i in range(3):
        assert_close(together.boxes[i], motion(points[i : i + 1], boxes[i : i + 1]).boxes[0], atol=1e-5, rtol=0)


def test_motion_moves_only_the_points_that_are_segmented():
    """With a segmentation of nothing, all points count as the origin: the boxes do not depend on the cloud."""
    torch.manual_seed(0)
    network = MotionNetwork(SegPointNet()).eval()
    torch.nn.init.zeros_(network.seg_pointnet.fc.weight)
    with torch.no_grad():
        network.seg_pointnet.fc.bias[:2] = torch.tensor([1.0, 0.0])
    first = network(torch.randn(1, 32, 5), torch.rand(1, 32, 9))
    second = network(torch.randn(1, 32, 5), torch.rand(1, 32, 9))
    assert_close(first.boxes, second.boxes)
    assert_close(first.first_boxes, compose(first.previous_boxes, first.motion * first.state.argmax(1, keepdim=True)))


def test_motion_without_some_of_its_parts():
    """What is left out leaves no weights, and the rest gives what the whole network gives where the part is idle."""
    torch.manual_seed(0)
    points, cloud = torch.randn(2, 32, 5), torch.rand(2, 32, 9)
    whole = MotionNetwork(SegPointNet()).eval()
    with torch.no_grad():
        whole.motion_state_mlp[6].bias.copy_(torch.tensor([-9.0, 9.0]))  # everything moves
        for layer in (whole.final_mlp[6], whole.box_mlp[6]):
            layer.weight.zero_()
            layer.bias.zero_()
    part = MotionNetwork(SegPointNet(), motion_state=False, second_stage=False, previous_refinement=False).eval()
    missing, unexpected = part.load_state_dict(whole.state_dict(), strict=False)
    assert missing == []
    assert {key.split(".")[0] for key in unexpected} == {"mini_pointnet2", "box_mlp", "final_mlp", "motion_state_mlp"}
    expected, found = whole(points, cloud), part(points, cloud)
    assert found.boxes is found.previous_boxes is found.state is None
    assert_close(found.last_boxes, expected.last_boxes)
    assert_close(found.last_boxes, found.motion)


def test_motion_without_box_cloud():
    torch.manual_seed(0)
    network = MotionNetwork(SegPointNet(5, out_channels=2), box_aware=False).eval()
    assert network.mini_pointnet.features[0].in_channels == 4
    assert network.mini_pointnet2.features[0].in_channels == 3
    points = torch.randn(2, 32, 5)
    output = network(points)
    assert output.box_cloud is None
    assert output.segmentation.shape == (2, 2, 32)
    assert_close(network(points, torch.rand(2, 32, 9)).boxes, output.boxes)  # what samples hold is not looked at
    with pytest.raises(ValueError, match="needs one"):
        MotionNetwork(SegPointNet())(points)


def test_a_mini_pointnet_may_end_with_a_layer():
    network = MiniPointNet(3, (4, 8), (6, 5), out_channels=2).eval()
    assert network.fc.weight.shape == (2, 5)
    points = torch.randn(2, 9, 3)
    assert_close(network(points), network.fc(network.features(points.mT)))
