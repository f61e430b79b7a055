"""DenseFPN, SCP and HRoIE: recorded numbers of the authors' code, published sizes, and the laws that define them."""

from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from projects.catnet.convolution import ConvNorm
from projects.catnet.dense_fpn import DenseFPN
from projects.catnet.hroie import HRoIE
from projects.catnet.scp import SCP, ContextAggregation

FOLDER = Path(__file__).parents[2] / "data" / "reference" / "catnet"
SIZES = ((24, 20), (12, 10), (6, 5), (3, 3))
BATCH_NORM = partial(ConvNorm, norm=nn.BatchNorm2d)


def load(name):
    return torch.load(FOLDER / f"{name}.pt", weights_only=True)


def count(module):
    return sum(p.numel() for p in module.parameters())


def leaves(tensors):
    return [x.clone().requires_grad_() for x in tensors]


def maps(channels, sizes=SIZES, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, c, *size, generator=generator) for c, size in zip(channels, sizes)]


# ---------------------------------------------------------------------------------------------------------- recorded


def test_recorded_scp():
    case = load("scp")
    module = SCP(16, 2, partial(ContextAggregation, reduction=case["meta"]["reduction"]))
    module.load_state_dict(case["state_dict"])
    inputs = leaves(case["inputs"]["feats"])
    outputs = module(inputs)
    for found, expected in zip(outputs, case["outputs"], strict=True):
        assert_close(found, expected, atol=1e-5, rtol=0)
    sum((x * w).sum() for x, w in zip(outputs, case["inputs"]["loss_weights"])).backward()
    for x, expected in zip(inputs, case["grads"]["inputs"], strict=True):
        assert_close(x.grad, expected, atol=1e-5, rtol=1e-4)
    for name, parameter in module.named_parameters():
        assert_close(parameter.grad, case["grads"]["params"][name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bottom_up_7", "top_down_14"])
def test_recorded_hroie(name):
    """A region that reaches over three borders of the image."""
    case = load("hroie")[name]
    meta = case["meta"]
    module = HRoIE(8, meta["featmap_strides"], meta["roi_layer"]["output_size"], meta["direction"])
    module.load_state_dict(case["state_dict"])
    feats = leaves(case["feats"])
    pooled = module(feats, case["rois"])
    assert_close(pooled, case["out"], atol=1e-5, rtol=0)
    (pooled * case["loss_weight"]).sum().backward()
    first = 1 if name == "top_down_14" else 0
    for x, expected in zip(feats[first:], case["grads"]):
        assert_close(x.grad[..., : expected.shape[-1]], expected, atol=1e-5, rtol=1e-4)


# ------------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(("start_level", "parameters"), [(0, 12_276_242), (1, 12_800_530)])
def test_published_pyramid(start_level, parameters):
    with torch.device("meta"):
        module = DenseFPN((256, 512, 1024, 2048), 256, 5, start_level, stack_times=5, conv_block=BATCH_NORM)
    assert count(module) == parameters
    assert [len(x) for x in module.top_down_atts] == [4, 3, 2]
    assert [len(x) for x in module.bottom_up_atts] == [2, 3, 4]


def test_published_context_and_extractor():
    assert count(SCP(256, 5)) == 660_490
    assert count(HRoIE(256, (4, 8, 16, 32), 7, "bottom_up")) == 525_312


@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        (dict(num_outs=5), (*SIZES, (2, 2))),
        (dict(num_outs=5, start_level=1), (*SIZES[1:], (2, 2), (1, 1))),
        (dict(num_outs=2, start_level=1, end_level=3), SIZES[1:3]),
    ],
)
def test_shapes(settings, sizes):
    module = DenseFPN((4, 6, 8, 10), 8, stack_times=2, conv_block=BATCH_NORM, **settings)
    assert [x.shape for x in module(maps((4, 6, 8, 10)))] == [(2, 8, *size) for size in sizes]


@pytest.mark.parametrize("settings", [dict(num_outs=3), dict(num_outs=3, end_level=2), dict(num_outs=0, end_level=0)])
def test_levels_that_do_not_fit(settings):
    with pytest.raises(ValueError, match="num_outs must be"):
        DenseFPN((4, 6, 8, 10), 8, **settings)


# ---------------------------------------------------------------------------------------------------------- DenseFPN


def test_pyramid_by_hand():
    """Two stages of three levels with the identity for bottlenecks, against the equations written out."""
    module = DenseFPN((1, 1, 1), 1, 3, stack_times=2)
    module.lateral_convs = nn.ModuleList(nn.Identity() for _ in range(3))
    module.stages = nn.ModuleList(nn.ModuleList(nn.Identity() for _ in range(6)) for _ in range(2))
    module.top_down_atts[0].data = torch.tensor([0.3, -1.0])
    module.bottom_up_atts[0].data = torch.tensor([0.8, 0.1])
    inputs = maps((1, 1, 1), ((8, 6), (4, 3), (2, 2)))
    p0, p1, p2 = inputs
    coarsest, next_coarsest = torch.tensor([0.3, -1.0]).softmax(0)
    finest, next_finest = torch.tensor([0.8, 0.1]).softmax(0)

    def up(x, like):
        return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)

    def pool(x, like):
        return F.adaptive_max_pool2d(x, like.shape[-2:])

    for _ in range(2):
        t2 = p2.relu()
        t1 = (p1 + up(p2, p1)).relu()
        t0 = (p0 + coarsest * up(p2, p0) + next_coarsest * up(p1, p0)).relu()
        p0, p1, p2 = (
            (p0 + t0).relu(),
            (p1 + t1 + pool(t0, p1)).relu(),
            (p2 + t2 + finest * pool(t0, p2) + next_finest * pool(t1, p2)).relu(),
        )
    for found, expected in zip(module(inputs), (p0, p1, p2), strict=True):
        assert_close(found, expected)


def test_gradients_are_added_up_in_the_order_of_the_equations():
    """A scale in front of a norm has the gradient 0, and so what is left is rounding: it is that of the equations."""
    torch.manual_seed(0)
    module = DenseFPN((4, 4, 4), 4, 3, stack_times=3, conv_block=BATCH_NORM)
    inputs = leaves(maps((4, 4, 4), ((12, 10), (6, 5), (3, 3))))
    weights = maps((4, 4, 4), ((12, 10), (6, 5), (3, 3)), seed=1)

    def equations(inputs):
        p = [conv(x) for conv, x in zip(module.lateral_convs, inputs)]
        coarser, finer = module.top_down_atts[0], module.bottom_up_atts[0]
        for stage in module.stages:
            t, u = [None] * 3, []
            for i in (2, 1, 0):
                total = 0
                for j, other in enumerate(p[:i:-1]):
                    share = coarser.softmax(0)[j] if i == 0 else 1
                    total = total + share * F.interpolate(other, p[i].shape[-2:], mode="bilinear")
                t[i] = stage[i]((p[i] + total).relu())
            for i in range(3):
                total = 0
                for j, other in enumerate(t[:i]):
                    share = finer.softmax(0)[j] if i == 2 else 1
                    total = total + share * F.adaptive_max_pool2d(other, p[i].shape[-2:])
                u.append(stage[3 + i]((p[i] + t[i] + total).relu()))
            p = u
        return p

    wanted = [*inputs, *(p for name, p in module.named_parameters() if "atts" not in name)]
    found, expected = (
        torch.autograd.grad(sum((x * w).sum() for x, w in zip(compute(inputs), weights)), wanted)
        for compute in (module, equations)
    )
    assert any(gradient.abs().max() < 1e-4 for gradient in expected)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_finest_node_sees_the_coarsest_map_directly():
    torch.manual_seed(0)
    module = DenseFPN((4,) * 5, 4, 5)
    levels = maps((4,) * 5, (*SIZES, (2, 2)))
    levels[4].requires_grad_()
    finest = module.top_down(levels, module.stages[0][:5])[0]
    (grad,) = torch.autograd.grad(finest.sum(), levels[4])
    assert grad.abs().max() > 0
    nodes = module.stages[0][:5]
    module.top_down_atts[0].data = torch.tensor([2.0, 0.0, 1.0, -1.0])
    weighted = module.top_down(levels, nodes)[0]
    module.top_down_atts[0].data += 5.0  # softmax: only differences count
    assert_close(module.top_down(levels, nodes)[0], weighted)
    module.top_down_atts[0].data = torch.tensor([0.0, 2.0, 1.0, -1.0])
    assert (module.top_down(levels, nodes)[0] - weighted).abs().max() > 1e-3


def test_stages_share_weights_of_levels_and_norms_follow_the_mode():
    module = DenseFPN((4, 6, 8, 10), 8, 5, stack_times=3, conv_block=BATCH_NORM)
    assert len(module.stages) == 3
    assert len(module.top_down_atts) == 3
    inputs = maps((4, 6, 8, 10))
    trained = module(inputs)
    sum(x.square().sum() for x in trained).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in module.parameters())
    evaluated = module.eval()(inputs)
    assert (evaluated[0] - trained[0]).abs().max() > 1e-3


def test_convolutions_start_within_caffes_bounds():
    torch.manual_seed(0)
    kernel = DenseFPN((64, 64), 64, 2).stages[0][0][1].conv.weight
    bound = (3 / (32 * 9)) ** 0.5
    assert 0.98 * bound < kernel.abs().max() <= bound
    assert_close(kernel.std().item(), bound / 3**0.5, atol=0, rtol=0.05)


# -------------------------------------------------------------------------------------------------------------- SCP


def test_fresh_context_is_the_identity():
    inputs = maps((16, 16))
    for found, expected in zip(SCP(16, 2)(inputs), inputs):
        assert torch.equal(found, expected)


def test_gradients_in_double_precision():
    torch.manual_seed(0)
    block = ContextAggregation(4).double()
    nn.init.normal_(block.m.conv.weight)
    x = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, x, atol=1e-6)
    pyramid = DenseFPN((2, 3, 4), 4, 3).double()
    inputs = leaves(x.double() for x in maps((2, 3, 4), ((4, 3), (2, 2), (1, 1)), batch=1))
    assert torch.autograd.gradcheck(lambda *levels: pyramid(levels), inputs, atol=1e-6)


# ------------------------------------------------------------------------------------------------------------ HRoIE

ROIS = torch.tensor([[0, 3.2, 5.1, 40.7, 33.9], [1, 0, 0, 79, 95], [1, -10, 20, 30, 100], [0, 50, 50, 52.5, 51]])


@pytest.mark.parametrize("direction", ["bottom_up", "top_down"])
def test_open_gates_by_a_half_add_up_the_crops(direction):
    feats = maps((8,) * 4)
    module = HRoIE(8, (4, 8, 16, 32), 7, direction)
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    crops = [torchvision.ops.roi_align(x, ROIS, 7, 1 / s, -1, True) for x, s in zip(feats, (4, 8, 16, 32))]
    assert_close(module(feats, ROIS), sum(crops) / 2)


def test_directions_differ():
    feats = maps((8,) * 4)
    up, down = (HRoIE(8, (4, 8, 16, 32), 7, direction) for direction in ("bottom_up", "top_down"))
    down.load_state_dict(up.state_dict())
    assert (up(feats, ROIS) - down(feats, ROIS)).abs().max() > 1e-2
    with pytest.raises(ValueError, match="'upwards'"):
        HRoIE(8, (4, 8), 7, "upwards")


def test_enlarged_regions_and_bins_of_any_shape():
    """A region of twice the size about its centre; the centre and size are those of the maps' precision."""
    feats = [x.double() for x in maps((8,) * 2)]
    module = HRoIE(8, (4, 8), (3, 5), "bottom_up", sampling_ratio=2).double()
    twice = torch.tensor([[0, 10, 20, 50.2, 60.6], [1, -20, -10, 40, 30]])
    once = torch.tensor([[0, 20.05, 30.15, 40.15, 50.45], [1, -5, 0, 25, 20]])
    pooled = module(feats, once, roi_scale_factor=2)
    assert pooled.shape == (2, 8, 3, 5)
    assert_close(pooled, module(feats, twice), atol=1e-5, rtol=0)
    exact = once.double()
    assert_close(pooled, module(feats, exact, roi_scale_factor=2), atol=1e-12, rtol=0)


def test_no_regions():
    module = HRoIE(8, (4, 8, 16, 32), 7, "bottom_up")
    feats = leaves(maps((8,) * 4))
    pooled = module(feats, ROIS[:0])
    assert pooled.shape == (0, 8, 7, 7)
    pooled.sum().backward()
    for parameter in module.parameters():  # otherwise distributed training waits for gradients that never come
        assert parameter.grad is not None
        assert not parameter.grad.any()


# --------------------------------------------------------------------------------------------------------- together


def test_learns_noise():
    """Small backbone, pyramid and context fit random maps; context and weights of levels leave their start."""
    torch.manual_seed(0)
    stages = nn.ModuleList(
        nn.Sequential(nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o), nn.ReLU())
        for i, o in zip((3, 8, 8, 16), (8, 8, 16, 16))
    )
    fpn = DenseFPN((8, 8, 16, 16), 16, 5, stack_times=2, conv_block=BATCH_NORM)
    scp, last = SCP(16, 5), nn.Conv2d(16, 1, 3, padding=1)
    model = nn.ModuleList([stages, fpn, scp, last])
    images, targets = torch.randn(4, 3, 32, 32), (torch.rand(4, 1, 16, 16) > 0.5).float()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
    losses = []
    for _ in range(80):
        levels = []
        x = images
        for stage in stages:
            x = stage(x)
            levels.append(x)
        loss = F.binary_cross_entropy_with_logits(last(scp(fpn(levels))[0]), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10)
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.6
    assert losses[-1] < 0.05
    assert fpn.top_down_atts[0].std() > 1e-3
    assert scp.blocks[0].m.conv.weight.abs().max() > 1e-3
