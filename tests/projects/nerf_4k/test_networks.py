"""Decoder and discriminator: the authors' numbers and names, the specified formulas, and pictures of any size."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from projects.nerf_4k.decoder import ResidualDenseGroup, SFTLayer, SFTNet
from projects.nerf_4k.discriminator import UNetDiscriminatorSN
from projects.nerf_4k.tiling import decode_in_tiles, receptive_radius

RECORDED = torch.load(Path(__file__).parents[2] / "data/reference/nerf_4k/sr_decoder_x4_ends.pt", weights_only=True)


def small(scale: int = 4, **changes) -> SFTNet:
    decoder = SFTNet(**{"scale": scale, "num_feat": 8, "num_block": 1, "num_grow_ch": 4, **changes})
    for parameter in decoder.parameters():  # what starts near 0 would hide mistakes
        nn.init.normal_(parameter, std=0.15)
    return decoder


# Decoder


def test_sizes_of_the_published_decoders():
    for scale, parameters in ((4, 3_955_811), (1, 3_881_955)):
        decoder = SFTNet(scale=scale)
        assert sum(parameter.numel() for parameter in decoder.parameters()) == parameters
    state = SFTNet(scale=4).state_dict()
    assert len(state) == 458
    for name, shape in {
        "body.4.rdb3.conv5.weight": (64, 192, 3, 3),
        "body.0.rdb1.sft0.SFT_scale_conv1.weight": (64, 32, 1, 1),
        "body.0.rdb1.sft1.SFT_shift_conv1.weight": (32, 32, 1, 1),
        "CondNet.0.weight": (64, 1, 3, 3),
        "CondNet.6.weight": (32, 64, 1, 1),
        "conv_up2.bias": (64,),
    }.items():
        assert tuple(state[name].shape) == shape
    assert [name for name in SFTNet(scale=2, num_block=1).state_dict() if "up" in name] == [
        "conv_up1.weight",
        "conv_up1.bias",
    ]


def test_recorded_ends():
    """Both ends of the released network, with a recorded trunk between them."""
    state, outputs = RECORDED["state_dict"], RECORDED["outputs"]
    decoder = SFTNet(scale=4, num_feat=16, num_block=0)
    decoder.load_state_dict(state | {n: v for n, v in decoder.state_dict().items() if n.startswith("CondNet")})
    transformed = decoder.sftbody(outputs["body"], outputs["cond"])
    torch.testing.assert_close(transformed[:, :4], outputs["sftbody"], atol=1e-5, rtol=0)
    body = decoder.conv_body(transformed) + decoder.conv_first(RECORDED["inputs"]["x"])
    # Of what was cut out, the picture's own border is on two sides.
    torch.testing.assert_close(decoder.enlarge(body)[..., :20, :40], outputs["y"], atol=1e-5, rtol=0)


SIGNS = ("scale", "shift")


def by_hand(decoder: SFTNet, x: torch.Tensor, depth: torch.Tensor) -> torch.Tensor:
    """The network of the specification, on the tensors of a state dict."""
    state = dict(decoder.named_parameters())

    def conv(name, x, pad=1):
        return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=pad)

    def lrelu(x):
        return torch.where(x >= 0, x, 0.2 * x)

    def sft(name, x):
        parts = [conv(f"{name}.SFT_{k}_conv1", lrelu(conv(f"{name}.SFT_{k}_conv0", cond, 0)), 0) for k in SIGNS]
        return x * (1 + parts[0]) + parts[1]

    def dense(name, x):
        a = sft(f"{name}.sft0", x)
        x1 = lrelu(conv(f"{name}.conv1", a))
        x2 = lrelu(conv(f"{name}.conv2", torch.cat([a, x1], 1)))
        x3 = lrelu(conv(f"{name}.conv3", torch.cat([a, x1, x2], 1)))
        x4 = lrelu(conv(f"{name}.conv4", torch.cat([a, x1, x2, x3], 1)))
        b = sft(f"{name}.sft1", x4)
        return 0.2 * conv(f"{name}.conv5", torch.cat([a, x1, x2, x3, b], 1)) + x

    def twice(x):
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    cond = depth
    for place, pad in ((0, 1), (2, 0), (4, 0), (6, 0)):
        cond = conv(f"CondNet.{place}", cond if place == 0 else lrelu(cond), pad)
    feat = body = conv("conv_first", x)
    for block in range(decoder.num_block):
        y = body
        for part in (1, 2, 3):
            y = dense(f"body.{block}.rdb{part}", y)
        body = 0.2 * sft(f"body.{block}.sft0", y) + body
    body = conv("conv_body", sft("sftbody", body)) + feat
    if decoder.scale > 1:
        body = lrelu(conv("conv_up1", twice(body)))
    if decoder.scale == 4:
        body = lrelu(conv("conv_up2", twice(body)))
    return conv("conv_last", lrelu(conv("conv_hr", body)))


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_values_and_gradients_of_the_formula(scale):
    decoder = small(scale, num_block=2).double()
    x, depth = torch.rand(2, 3, 5, 7).double().requires_grad_(), torch.rand(2, 1, 5, 7).double().requires_grad_()
    ours, theirs = decoder(x, depth), by_hand(decoder, x, depth)
    assert ours.shape == (2, 3, 5 * scale, 7 * scale)
    torch.testing.assert_close(ours, theirs)
    target = torch.rand_like(ours)
    wanted = [x, depth, *decoder.parameters()]
    pairs = zip(*(torch.autograd.grad(F.l1_loss(out, target), wanted) for out in (ours, theirs)))
    for own, other in pairs:
        torch.testing.assert_close(own, other)


def test_start():
    group = ResidualDenseGroup(64, 32)
    # Kaiming's deviation sqrt(2 / (192 * 9)), a tenth of it.
    assert float(group.rdb2.conv5.weight.detach().std()) == pytest.approx(0.1 * (2 / (192 * 9)) ** 0.5, rel=0.03)
    assert not group.rdb2.conv5.bias.any()
    assert SFTLayer(64).SFT_scale_conv1.bias.any()


def test_further_features():
    decoder = small(2, n_in_colors=6)
    x, depth, fea = torch.rand(1, 6, 6, 6), torch.rand(1, 1, 6, 6), torch.rand(1, 8, 6, 6)
    plain, other = decoder(x, depth), decoder(x, depth, fea)
    assert decoder.conv_prefea.in_channels == 16
    assert (decoder.conv_fea.in_channels, decoder.conv_fea.out_channels) == (6, 8)
    assert other.shape == plain.shape == (1, 3, 12, 12)
    assert not torch.allclose(plain, other)
    with torch.no_grad():  # conv_prefea that lets the input's features through
        decoder.conv_prefea.weight.zero_()
        decoder.conv_prefea.weight[range(8), range(8), 1, 1] = 1
        decoder.conv_prefea.bias.zero_()
    torch.testing.assert_close(decoder(x, depth, fea), plain, rtol=0, atol=1e-5)
    pixels = small(1, dswise=True)
    assert pixels.conv_first.kernel_size == (1, 1)
    assert SFTNet(**pixels.settings()).state_dict().keys() == pixels.state_dict().keys()
    with pytest.raises(ValueError, match="1, 2 or 4"):
        SFTNet(scale=3)


# Tiles


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_tiles_with_the_networks_reach_are_the_whole(scale):
    decoder = small(scale)
    x, depth = torch.rand(1, 3, 23, 51), torch.rand(1, 1, 23, 51)
    with torch.no_grad():
        whole = decoder(x, depth)
    pad = receptive_radius(decoder)
    for tile in (7, 16, 22):
        tiled = decode_in_tiles(decoder, x, depth, tile_size=tile, tile_pad=pad)
        torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    assert torch.equal(decode_in_tiles(decoder, x, depth, tile_size=51, tile_pad=3), whole)
    # Without what lies around a tile its border is another, in each tile alike.
    assert float((decode_in_tiles(decoder, x, depth, tile_size=16, tile_pad=0) - whole).abs().max()) > 1e-3


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_reach(scale):
    """No pixel further away changes an output pixel, and one at that distance does."""
    decoder = SFTNet(scale=scale, num_feat=4, num_block=1, num_grow_ch=2).double()
    for parameter in decoder.parameters():
        nn.init.uniform_(parameter, 0.1, 0.2)
    x = torch.rand(1, 3, 49, 5).double().requires_grad_()
    depth = torch.rand(1, 1, 49, 5).double().requires_grad_()
    middle = decoder(x, depth)[..., 24 * scale : 25 * scale, 2 * scale].sum()
    for grad in torch.autograd.grad(middle, (x, depth)):
        rows = grad.abs().sum((0, 1, 3)).nonzero()[:, 0]
        assert rows.min() >= 24 - receptive_radius(decoder)
        assert rows.max() <= 24 + receptive_radius(decoder)
    assert rows.min() == 24 - receptive_radius(decoder)


@pytest.mark.parametrize(("height", "width"), [(64, 48), (65, 49), (66, 50), (67, 51)])
def test_every_size_is_enlarged_exactly(height, width):
    decoder = small(4, num_feat=4)
    tiled = decode_in_tiles(
        decoder, torch.rand(1, 3, height, width), torch.rand(1, 1, height, width), tile_size=32, tile_pad=2
    )
    assert tiled.shape == (1, 3, 4 * height, 4 * width)
    assert tiled.isfinite().all()


def test_tiles_need_a_size():
    for tile, pad in ((0, 1), (4, -1)):
        with pytest.raises(ValueError, match="positive size"):
            decode_in_tiles(small(), torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4), tile_size=tile, tile_pad=pad)


@pytest.mark.slow
def test_decoder_overfits_a_patch():
    decoder = SFTNet(scale=4, num_feat=16, num_block=1)
    rows, columns = torch.meshgrid(torch.linspace(0, 3, 64), torch.linspace(0, 3, 64), indexing="ij")
    target = torch.stack([rows.sin(), columns.cos(), (rows * columns).sin()])[None] / 2 + 0.5
    x = F.avg_pool2d(target, 4)
    optimizer = torch.optim.Adam(decoder.parameters(), lr=1e-3)
    errors = []
    for _ in range(200):
        loss = F.l1_loss(decoder(x, x[:, :1]), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(loss.detach()))
    assert errors[-1] < errors[0] / 5


# Discriminator


def judged_by_hand(state: dict, x: torch.Tensor, *, iterate: bool, skips: bool = True) -> torch.Tensor:
    """The specified U-Net; the state's vectors take one power iteration each where asked."""

    def lrelu(x):
        return torch.where(x >= 0, x, 0.2 * x)

    def conv(number, x, stride=1):
        name = f"conv{number}"
        if f"{name}.weight" in state:
            return F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1)
        weight = state[f"{name}.weight_orig"]
        matrix = weight.detach().flatten(1)
        if iterate:
            v = matrix.T @ state[f"{name}.weight_u"]
            state[f"{name}.weight_v"] = v / v.norm()
            u = matrix @ state[f"{name}.weight_v"]
            state[f"{name}.weight_u"] = u / u.norm()
        u, v = state[f"{name}.weight_u"], state[f"{name}.weight_v"]
        return lrelu(F.conv2d(x, weight / (u @ weight.flatten(1) @ v), stride=stride, padding=1))

    def twice(x):
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)

    height, width = x.shape[2] // 8 * 8, x.shape[3] // 8 * 8
    x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
    x0 = lrelu(conv(0, x))
    x1 = conv(1, x0, 2)
    x2 = conv(2, x1, 2)
    x3 = conv(3, x2, 2)
    x4 = conv(4, twice(x3)) + skips * x2
    x5 = conv(5, twice(x4)) + skips * x1
    x6 = conv(6, twice(x5)) + skips * x0
    return conv(9, conv(8, conv(7, x6)))


@pytest.mark.parametrize(("size", "skips"), [((16, 24), True), ((21, 30), True), ((16, 24), False)])
def test_judgements_and_their_power_iterations(size, skips):
    discriminator = UNetDiscriminatorSN(num_feat=6, skip_connection=skips).double()
    assert UNetDiscriminatorSN(**discriminator.settings()).skip_connection == skips
    state = {name: value.detach().clone() for name, value in discriminator.state_dict().items()}
    for name in state:
        if name.endswith("weight_orig"):
            state[name].requires_grad_()
    x = torch.rand(2, 3, *size).double().requires_grad_()
    for training in (True, True, False):
        discriminator.train(training)
        ours, theirs = discriminator(x), judged_by_hand(state, x, iterate=training, skips=skips)
        assert ours.shape == (2, 1, size[0] // 8 * 8, size[1] // 8 * 8)
        torch.testing.assert_close(ours, theirs)
    grads = torch.autograd.grad(ours.square().mean(), [x, discriminator.conv4.weight_orig])
    expected = torch.autograd.grad(theirs.square().mean(), [x, state["conv4.weight_orig"]])
    for own, other in zip(grads, expected):
        torch.testing.assert_close(own, other)
    for name, value in discriminator.state_dict().items():
        torch.testing.assert_close(value, state[name].detach())


def test_size_and_names_of_the_discriminator():
    discriminator = UNetDiscriminatorSN()
    assert sum(parameter.numel() for parameter in discriminator.parameters()) == 4_376_897
    state = discriminator.state_dict()
    assert {"conv1.weight_orig", "conv1.weight_u", "conv1.weight_v", "conv9.bias"} <= state.keys()
    assert "conv1.bias" not in state
    assert UNetDiscriminatorSN(num_feat=4)(torch.rand(1, 3, 5, 9)).shape == (1, 1, 8, 8)
