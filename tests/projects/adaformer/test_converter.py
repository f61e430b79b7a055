"""Checkpoints of Open3DSOT: both ways, read without running what is in them, and as starts."""

import sys
import types
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from perception.engine.checkpoint import load_checkpoint_file, load_weights
from perception.engine.errors import UserError
from projects.adaformer import converter
from projects.adaformer.backbone import AdaFormer
from projects.adaformer.motion import MotionNetwork, SegAdaFormer, SegPointNet
from projects.adaformer.pointnet2 import PointNet2SSG
from projects.adaformer.siamese import SiameseNetwork

CONFIGS = Path(__file__).parents[3] / "configs"
DIMS = ((8, 8, 16), (16, 16, 32), (32, 32, 24))


def p2b(seed=0):
    torch.manual_seed(seed)
    return SiameseNetwork(PointNet2SSG(0, DIMS), 40, 48, hidden_channels=32)


def m2track(seed=0):
    torch.manual_seed(seed)
    return MotionNetwork(SegPointNet())


@pytest.fixture
def lightning(monkeypatch):
    """Saves a file as Lightning 1.3 does for a model of Open3DSOT: settings and callbacks are objects of others."""

    def save(path, network):
        easydict = types.ModuleType("easydict")
        package = "pytorch_lightning.callbacks.model_checkpoint"
        modules = [types.ModuleType(package.rsplit(".", cut)[0]) for cut in (2, 1)] + [types.ModuleType(package)]
        callbacks = modules[-1]
        settings = type("EasyDict", (dict,), {"__module__": "easydict"})
        easydict.EasyDict = settings
        callbacks.ModelCheckpoint = type("ModelCheckpoint", (), {"__module__": callbacks.__name__})
        with monkeypatch.context() as patch:
            for module in (easydict, *modules):
                patch.setitem(sys.modules, module.__name__, module)
            content = {
                "epoch": 59,
                "global_step": 100,
                "pytorch-lightning_version": "1.3.8",
                "state_dict": network.state_dict(),
                "callbacks": {callbacks.ModelCheckpoint: {"best_model_score": torch.tensor(60.5)}},
                "hyper_parameters": {"config": settings(net_model="p2b", degrees=True, limits=settings(use_z=False))},
            }
            torch.save(content, path)
        return path

    return save


@pytest.mark.parametrize("make", [p2b, m2track])
def test_both_ways_give_back_the_same_weights(make, lightning, tmp_path, run_tool):
    network = make()
    theirs = lightning(tmp_path / "theirs.ckpt", network)
    ours, back = tmp_path / "ours.pth", tmp_path / "back.ckpt"
    done = run_tool("convert_checkpoint", "adaformer", theirs, ours)
    assert done.code == 0, done.err
    assert f"{len(network.state_dict())} weights ({'P2B' if make is p2b else 'M2-Track'})" in done.out
    assert "left out" not in done.out
    done = run_tool("convert_checkpoint", "adaformer", ours, back, "--to", "authors")
    assert done.code == 0, done.err
    content = torch.load(back, weights_only=True)
    assert content["hyper_parameters"]["config"] == {
        "net_model": "p2b",
        "degrees": True,
        "limits": {"use_z": False},
    }
    assert content["pytorch-lightning_version"] == "1.3.8"
    for key, value in network.state_dict().items():
        assert torch.equal(content["state_dict"][key], value), key
    assert len(content["state_dict"]) == len(network.state_dict())


@pytest.mark.parametrize(
    ("config", "network"), [("p2b_kitti_car", lambda: SiameseNetwork(PointNet2SSG())), ("m2track_kitti_car", m2track)]
)
def test_the_recipes_take_converted_weights(config, network):
    network = network()
    converted = converter.to_perception({"state_dict": network.state_dict()}).checkpoint
    model = MODELS.build(Config.fromfile(CONFIGS / "adaformer" / f"{config}.py").model)
    assert load_weights(model, converted, "converted") == []
    for one, other in zip(model.network.state_dict().values(), network.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "switches",
    [
        {"box_aware": False},
        {"motion_state": False, "second_stage": False, "previous_refinement": False},
        {"box_aware": False, "second_stage": False},
    ],
)
def test_m2track_is_taken_with_fewer_parts(switches):
    channels = (14, 11) if switches.get("box_aware", True) else (5, 2)
    network = MotionNetwork(SegPointNet(channels[0], out_channels=channels[1]), **switches)
    state = network.state_dict()
    converted = converter.to_perception({"state_dict": state})
    assert converted.unmatched == []
    assert {key.removeprefix("network.") for key in converted.checkpoint["state_dict"]} == set(state)
    assert set(converter.to_authors(converted.checkpoint).checkpoint["state_dict"]) == set(state)


@pytest.mark.parametrize("make", [p2b, m2track])
def test_numbers_of_batches_may_be_missing(make):
    network = make()
    state = {key: value for key, value in network.state_dict().items() if not key.endswith("num_batches_tracked")}
    converted = converter.to_perception({"state_dict": state}).checkpoint["state_dict"]
    network.load_state_dict({key.removeprefix("network."): value for key, value in converted.items()})
    assert converter.to_start({"state_dict": state}).checkpoint["state_dict"]


class _Unchanged(torch.nn.Module):
    def forward(self, points, x):
        return x


def test_siamcut_starts_as_p2b():
    """The set abstractions see nothing of the sizes yet: they give what P2B's give."""
    network = p2b().eval()
    start = converter.to_start({"state_dict": network.state_dict()})
    assert start.unmatched == []
    model = SiameseNetwork(AdaFormer(3, DIMS, num_neighbours=4), 40, 48, hidden_channels=32).eval()
    weights = {key.removeprefix("network."): value for key, value in start.checkpoint["state_dict"].items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert missing
    assert all(".block." in key for key in missing)
    points = torch.randn(2, 64, 3)
    stage = model.backbone.stages[0]
    stage.fps, stage.block = False, _Unchanged()
    centres, features, _ = network.backbone.SA_modules[0](points, None, 32)
    sized, same, _ = stage(points, torch.full((2, 3, 64), 1.2), 32)
    torch.testing.assert_close(sized, centres)
    torch.testing.assert_close(same, features)


def test_mocut_starts_as_m2track_behind_its_segmentation():
    network = m2track()
    ours = converter.to_perception({"state_dict": network.state_dict()}).checkpoint
    start = converter.to_start(ours)
    assert start.unmatched
    assert all(key.startswith("seg_pointnet.") for key in start.unmatched)
    model = MotionNetwork(SegAdaFormer(AdaFormer(11, DIMS, num_neighbours=4), decoder=((32, 32), (32, 16), (16, 16))))
    weights = {key.removeprefix("network."): value for key, value in start.checkpoint["state_dict"].items()}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert unexpected == []
    assert all(key.startswith("seg_pointnet.") for key in missing)


def test_what_is_something_else_is_one_sentence():
    p2b_state = p2b().state_dict()
    for change, words in (
        ({"mlp_bc.0.conv.weight": torch.zeros(1)}, "this is BAT"),
        ({"rpn.FC_proposal.2.conv.bias": torch.zeros(7)}, "has shape \\(7,\\) instead of \\(5,\\)"),
    ):
        with pytest.raises(UserError, match=words):
            converter.to_perception({"state_dict": {**p2b_state, **change}})
    with pytest.raises(UserError, match="weights are missing"):
        converter.to_perception({"state_dict": {k: v for k, v in p2b_state.items() if "xcorr" not in k}})
    with pytest.raises(UserError, match="neither P2B nor M2-Track"):
        converter.to_perception({"state_dict": {"x": torch.zeros(1)}})
    siamcut = SiameseNetwork(AdaFormer(3, DIMS)).state_dict()
    with pytest.raises(UserError, match="SiamCUT or MoCUT"):
        converter.to_authors({"state_dict": {f"network.{key}": value for key, value in siamcut.items()}})


class _Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harm"),))


def test_nothing_in_a_file_is_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {}, "hyper_parameters": _Harmful()}, "bad.ckpt")
    with pytest.raises(UserError, match="refused"):
        load_checkpoint_file("bad.ckpt")
    assert not Path("harm").exists()
