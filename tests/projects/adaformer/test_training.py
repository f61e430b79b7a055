"""Training, evaluation and exact resumption with the ordinary tools, on small scenes in KITTI's layout."""

import json
from pathlib import Path

import pytest
import torch

from perception.engine.config import load_config
from perception.engine.run import build_train_runner
from tests.datasets.kitti_scenes import street

CONFIGS = Path(__file__).parents[3] / "configs"
RECIPES = {"siamcut": "adaformer.py", "mocut": "adaformer/mocut_kitti.py"}
DIMS = "((8,8,16),(16,16,32),(32,32,32))"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return street(tmp_path_factory.mktemp("kitti"))


def options(root, name, **more):
    """Settings of a tiny tracker on three short scenes."""
    found = {
        "train_dataloader.batch_size": 8,
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "train_dataloader.dataset.cache_dir": str(root / "cache"),
        "train_dataloader.dataset.candidates": 2,
        "train_cfg.max_epochs": 2,
        "default_hooks.checkpoint.interval": 1,
        "default_hooks.logger.interval": 1,
    }
    for part, scene in (("train", 0), ("val", 17), ("test", 19)):
        found[f"{part}_dataloader.dataset.tracklets.data_root"] = str(root)
        found[f"{part}_dataloader.dataset.tracklets.split"] = [scene]
    backbone = {"dims": DIMS, "num_samples": 8, "num_neighbours": 4}
    if name == "siamcut":
        found |= {f"model.backbone.{key}": value for key, value in backbone.items()}
        found |= {"model.network.channels": 32, "model.network.vote_channels": 32, "model.network.num_proposals": 8}
        points = {"template_points": 64, "search_points": 128}
    else:
        found |= {f"model.segmenter.backbone.{key}": value for key, value in backbone.items()}
        found["model.segmenter.decoder"] = "((32,32),(32,16),(16,16))"
        points = {"points": 128}
    for part in ("model", "train_dataloader.dataset"):
        found |= {f"{part}.{key}": value for key, value in points.items()}
    return found | more


def train(root, name, work_dir, resume=None, **more):
    settings = {
        key: eval(value) if isinstance(value, str) and value.startswith("((") else value
        for key, value in options(root, name, **more).items()
    }
    config = load_config(str(CONFIGS / RECIPES[name]), settings, str(work_dir))
    config.launcher, config.randomness = "none", dict(seed=0)
    config.resume, config.load_from = resume is not None, resume
    runner = build_train_runner(config)
    runner.train()
    return runner


@pytest.mark.parametrize("name", RECIPES)
def test_a_resumed_run_equals_the_uninterrupted_one(root, tmp_path, name):
    every = {"default_hooks.checkpoint.by_epoch": False, "default_hooks.checkpoint.max_keep_ckpts": -1}
    whole = train(root, name, tmp_path / "whole", **every)
    length = whole.iter // 2
    assert length == 3
    for iteration in (2, length + 1):  # within the first epoch, and within the second
        torch.manual_seed(123)
        resumed = train(root, name, tmp_path / "resumed", str(tmp_path / "whole" / f"iter_{iteration}.pth"), **every)
        assert resumed.iter == whole.iter
        for (key, one), other in zip(
            whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
        ):
            assert torch.equal(one, other), (iteration, key)


@pytest.mark.parametrize("name", ["siamcut", "siamcut_plain", "mocut", "mocut_plain"])
def test_demos_train_and_evaluate(root, tmp_path, run_tool, name):
    settings = {
        "train_dataloader.batch_size": 4,
        "train_dataloader.num_workers": 0,
        "train_dataloader.persistent_workers": False,
        "train_dataloader.dataset.cache_dir": root / "cache",
        "train_dataloader.dataset.candidates": 1,
        "train_cfg.max_epochs": 1,
        "train_cfg.val_interval": 1,
    }
    for part, scene in (("train", 0), ("val", 17), ("test", 19)):
        settings[f"{part}_dataloader.dataset.tracklets.data_root"] = root
        settings[f"{part}_dataloader.dataset.tracklets.split"] = f"[{scene}]"
    arguments = [f"{key}={value}" for key, value in settings.items()]
    config = f"configs/demo/{name}.py"
    done = run_tool("train", config, "--work-dir", tmp_path / "run", "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    assert "tracking/success" in done.out + done.err
    done = run_tool("test", config, tmp_path / "run" / "epoch_1.pth", "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    assert "tracking/Pedestrian/precision" in done.out + done.err


def test_tools_train_and_test(root, tmp_path, run_tool):
    settings = options(root, "siamcut", **{"train_cfg.max_epochs": 1})
    arguments = [f"{key}={value}".replace(" ", "") for key, value in settings.items()]
    work_dir = tmp_path / "run"
    done = run_tool("train", "configs/adaformer.py", "--work-dir", work_dir, "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    assert "2 tracklets, 12 frames; boxes by the rectified calibration" in done.out + done.err
    done = run_tool("test", "configs/adaformer.py", work_dir / "epoch_1.pth", "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    for number in ("tracking/success", "tracking/Car/success", "tracking/Pedestrian/precision"):
        assert number in done.out + done.err

    done = run_tool(
        *("infer", "configs/adaformer.py", work_dir / "epoch_1.pth", root, "--out", tmp_path / "out"),
        *("--boxes", root / "label_02", "--workers", "1", "--cfg-options", *arguments),
    )
    assert done.code == 0, done.err[-3000:]
    found = json.loads((tmp_path / "out" / "tracks.json").read_text())["sequences"]
    assert set(found) == {"0000", "0017", "0019"}
    for sequence in found.values():
        assert {track["category"]: len(track["boxes"]) for track in sequence["tracks"].values()} == {
            "Car": 6,
            "Pedestrian": 6,
        }


def test_missing_data_are_one_sentence(tmp_path, run_tool):
    done = run_tool(
        "train", "configs/adaformer.py", "--work-dir", tmp_path, "--cfg-options",
        f"train_dataloader.dataset.tracklets.data_root={tmp_path}",
    )  # fmt: skip
    assert done.code != 0
    assert "has no folder calib" in done.err
    assert "Traceback" not in done.err
