"""The authors' files: read without running anything in them, written so that their loaders read them."""

import numpy as np
import pytest
import torch

from perception.engine.errors import UserError
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.mpi import DirectMPIGO
from projects.nerf_4k.converter import Parts, authors, ours, read_parts, start_trunk, to_authors, to_perception
from projects.nerf_4k.decoder import SFTNet
from projects.nerf_4k.discriminator import UNetDiscriminatorSN


class Anything:
    """What a pickle could name."""


BOX = ([-1.3, -1.2, -1.0], [1.3, 1.2, 1.0])


def forward_facing() -> DirectMPIGO:
    field = DirectMPIGO(
        *BOX, num_voxels=9 * 8 * 6, mpi_depth=6, fast_color_thres=1 / 30, rgbnet_width=8, act_type="lkrelu"
    )
    field.density.grid.data.normal_()
    field.k0.grid.data.normal_()
    field.set_mask(torch.rand(4, 5, 6) > 0.3)
    return field


def bounded() -> DirectVoxGO:
    field = DirectVoxGO(
        *BOX, num_voxels=8**3, num_voxels_base=10**3, alpha_init=1e-2, fast_color_thres=1e-4, rgbnet_dim=12
    )
    field.density.grid.data.normal_()
    field.act_shift -= 4
    return field


def released_tar(field) -> dict:
    """The content of `fine_last.tar` as the released code writes it."""
    kwargs = {
        "xyz_min": field.xyz_min.numpy(),
        "xyz_max": field.xyz_max.numpy(),
        "num_voxels": np.int64(field.num_voxels),
        "voxel_size_ratio": torch.tensor(float(field.voxel_size_ratio)),
        "mask_cache_path": None,
        "mask_cache_thres": 1e-3,
        "mask_cache_world_size": list(field.mask_cache.mask.shape),
        "fast_color_thres": field.fast_color_thres,
        "density_type": "DenseGrid",
        "k0_type": "DenseGrid",
        "density_config": {},
        "k0_config": {},
        "rgbnet_dim": field.rgbnet_dim,
        "rgbnet_depth": field.rgbnet_depth,
        "rgbnet_width": field.rgbnet_width,
        "viewbase_pe": field.viewbase_pe,
    }
    if isinstance(field, DirectMPIGO):
        kwargs |= {"mpi_depth": 6, "spatial_pe": 0, "mode_type": "mlp", "act_type": field.act_type, "dim_rend": 3}
    else:
        kwargs |= {"num_voxels_base": field.num_voxels_base, "alpha_init": 1e-2, "rgbnet_direct": True}
    return {
        "global_step": 30000,
        "model_kwargs": kwargs,
        "model_state_dict": field.state_dict(),
        "optimizer_state_dict": {"state": {}, "param_groups": []},
    }


def same(ours: torch.nn.Module, theirs: torch.nn.Module) -> bool:
    own, other = ours.state_dict(), theirs.state_dict()
    return own.keys() == other.keys() and all(torch.equal(own[name], other[name]) for name in own)


@pytest.mark.parametrize("make", [forward_facing, bounded])
def test_encoder_there_and_back(make, tmp_path, run_tool):
    field = make()
    torch.save(released_tar(field), tmp_path / "fine_last.tar")
    result = run_tool("convert_checkpoint", "nerf_4k", tmp_path / "fine_last.tar", tmp_path / "ours.pth")
    assert result.code == 0
    assert f"{len(field.state_dict())} weights ({type(field).__name__} encoder)" in result.out
    assert "left out, because the model has no place for them: 1 keys\n  optimizer_state_dict" in result.out
    parts = read_parts(torch.load(tmp_path / "ours.pth", weights_only=True))
    assert parts.step == 30000
    assert same(parts.encoder, field)
    assert parts.encoder.settings() == {**field.settings(), "align_corners": True}
    rays = torch.rand(20, 3) - 0.5, torch.tensor([[0.1, 0.0, 2.0]]).expand(20, 3), torch.rand(20, 3)
    near = {"near": 0.0} if isinstance(field, DirectVoxGO) else {}
    shown = [made(*rays, **near) for made in (parts.encoder, field)]
    colours = [value["rgb_marched"] if isinstance(value, dict) else value.rgb_marched for value in shown]
    assert torch.equal(*colours)
    assert run_tool(
        "convert_checkpoint", "nerf_4k", tmp_path / "ours.pth", tmp_path / "back.tar", "--to", "authors"
    ).code == 0  # fmt: skip
    back = torch.load(tmp_path / "back.tar", weights_only=True)
    theirs = released_tar(field)
    assert back["global_step"] == 30000
    assert back["model_kwargs"].keys() >= theirs["model_kwargs"].keys()
    for name, value in theirs["model_kwargs"].items():
        own = back["model_kwargs"][name]
        assert own == (value.tolist() if isinstance(value, np.ndarray) else value), name
    assert back["model_state_dict"].keys() == theirs["model_state_dict"].keys()


@pytest.mark.parametrize(
    ("scale", "key", "prefix"), [(4, "params", ""), (2, "params_ema", "module."), (1, "params", "module.")]
)
def test_decoder_there_and_back(scale, key, prefix):
    decoder = SFTNet(scale=scale, num_feat=8, num_block=2, num_grow_ch=4, n_in_colors=5 if scale == 2 else 3)
    content = {key: {f"{prefix}{name}": value for name, value in decoder.state_dict().items()}}
    if key == "params_ema":
        content["params"] = {"conv_first.weight": torch.zeros(1)}
    converted = to_perception(content)
    assert converted.description == "SFTNet decoder"
    assert converted.unmatched == (["params"] if key == "params_ema" else [])
    read = read_parts(converted.checkpoint).decoder
    assert read.settings() == decoder.settings()
    assert same(read, decoder)
    back = to_authors(converted.checkpoint).checkpoint
    assert list(back["params"]) == list(decoder.state_dict())


def test_one_file_with_everything():
    discriminator = UNetDiscriminatorSN(num_feat=4)
    parts = Parts(forward_facing(), SFTNet(num_feat=8, num_block=1, num_grow_ch=4), discriminator, 123)
    read = read_parts(authors(parts))
    assert read.step == 123
    assert all(same(own, other) for own, other in zip(read[:3], parts[:3]))
    everything = to_perception(authors(parts) | {"best_psnr": 30.0, "weight": torch.zeros(1)})
    assert everything.unmatched == ["best_psnr", "weight"]
    bare = to_perception({f"module.{name}": value for name, value in discriminator.state_dict().items()})
    assert bare.unmatched == []
    assert same(read_parts(bare.checkpoint).discriminator, discriminator)
    assert read_parts(ours(parts)).decoder.settings() == parts.decoder.settings()


def test_what_is_not_of_the_system_is_refused(tmp_path, run_tool):
    def refused(content, words):
        with pytest.raises(UserError, match=words):
            to_perception(content)

    refused({"state_dict": {"a": torch.zeros(1)}}, "neither an encoder")
    decoder = SFTNet(num_feat=8, num_block=1, num_grow_ch=4).state_dict()
    refused({"params": {n: v for n, v in decoder.items() if n != "conv_hr.bias"}}, "missing, such as conv_hr.bias")
    refused({"params": {**decoder, "extra.weight": torch.zeros(1)}}, "more than a 4K-NeRF decoder: extra.weight")
    tar = released_tar(forward_facing())
    for name, value, words in (
        ("density_type", "TensoRFGrid", "density_type is TensoRFGrid"),
        ("mode_type", "TRANS", "mode_type is TRANS"),
        ("num_voxels", 5000, "size mismatch"),
        ("act_type", "sine", "sine"),
    ):
        refused({**tar, "model_kwargs": {**tar["model_kwargs"], name: value}}, words)
    kwargs = {name: value for name, value in tar["model_kwargs"].items() if name != "mpi_depth"}
    refused({**tar, "model_kwargs": kwargs}, "lacks 'mpi_depth'")
    with pytest.raises(UserError, match="damaged or of another version"):
        to_authors({"decoder": {"settings": {"scale": 4, "colour": 1}, "state_dict": {}}})

    torch.save({**tar, "args": Anything()}, tmp_path / "odd.tar")
    result = run_tool("convert_checkpoint", "nerf_4k", tmp_path / "odd.tar", tmp_path / "ours.pth")
    assert result.code == 1
    assert "could run code" in result.err
    assert not (tmp_path / "ours.pth").exists()


def generator(num_feat: int, num_grow_ch: int, blocks: int) -> dict[str, torch.Tensor]:
    """Names and shapes of BasicSR's RRDBNet."""
    state = {"conv_first": (num_feat, 3), "conv_last": (3, num_feat)}
    state |= dict.fromkeys(("conv_body", "conv_up1", "conv_up2", "conv_hr"), (num_feat, num_feat))
    for block in range(blocks):
        for part in (1, 2, 3):
            for number in range(5):
                outputs = num_feat if number == 4 else num_grow_ch
                name = f"body.{block}.rdb{part}.conv{number + 1}"
                state[name] = (outputs, num_feat + number * num_grow_ch)
    weights = {f"{name}.weight": torch.randn(*shape, 3, 3) for name, shape in state.items()}
    return weights | {f"{name}.bias": torch.randn(shape[0]) for name, shape in state.items()}


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_start_from_real_esrnet(scale):
    decoder = SFTNet(scale=scale, num_feat=8, num_block=2, num_grow_ch=4)
    before = {name: value.clone() for name, value in decoder.state_dict().items()}
    weights = generator(8, 4, blocks=5)
    taken, left = start_trunk(decoder, {"params_ema": weights})
    state = decoder.state_dict()
    assert all(torch.equal(state[name], weights[name]) for name in taken)
    assert all(torch.equal(state[name], before[name]) for name in left)
    upsampling = {1: 0, 2: 1, 4: 2}[scale]
    assert len(taken) == 2 * (2 * 3 * 5 + 4 + upsampling)
    assert sorted(taken + left) == sorted(state)
    assert all("SFT" in name or "CondNet" in name for name in left)


def test_other_generators_are_refused():
    decoder = SFTNet(num_feat=8, num_block=2, num_grow_ch=4)
    before = decoder.conv_first.weight.clone()
    for weights, words in (
        (generator(8, 4, blocks=1), "missing, such as body.1"),
        (generator(16, 4, blocks=2), "has shape"),
        ({"model": torch.zeros(1)}, "does not hold a Real-ESRNet"),
    ):
        with pytest.raises(UserError, match=words):
            start_trunk(decoder, {"params_ema": weights})
    assert torch.equal(decoder.conv_first.weight, before)
