"""The demo on one small scene: cut, trained in stages, merged, fused and measured by the tools; and resumed exactly."""

from pathlib import Path

import pytest
import torch

from perception.datasets.synthetic import bridges
from perception.engine.config import load_config
from perception.engine.run import build_test_runner, build_train_runner
from tests.conftest import REPOSITORY

HEADS = {
    "bbox_roi_extractor.out_channels": 16,
    "bbox_head.in_channels": 16,
    "bbox_head.fc_out_channels": 32,
}
TINY = {
    "model.backbone.base_channels": 8,
    "model.backbone.stem_channels": 8,
    "model.neck.in_channels": "[8,16,32]",
    "model.neck.out_channels": 16,
    "model.rpn_head.in_channels": 16,
    "model.rpn_head.feat_channels": 16,
    **{f"model.roi_head.{key}": value for key, value in HEADS.items()},
    "train_dataloader.num_workers": 0,
    "train_dataloader.persistent_workers": False,
    "test_dataloader.num_workers": 0,
    "test_dataloader.persistent_workers": False,
    "train_cfg.max_epochs": 1,
    "default_hooks.logger.interval": 1,
}
TWO_BRANCHES = {**{f"model.global_roi_head.{key}": value for key, value in HEADS.items()}}
FUSED = {**TWO_BRANCHES, "model.fusion.channels": 16}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Scenes of 420 pixels; bridges are as long as they are."""
    out = tmp_path_factory.mktemp("data") / "bridges"
    bridges.write(out, bridges.Params(num_train=1, num_val=1, min_size=420, max_size=420))
    return out


@pytest.fixture(scope="module")
def patches(scene):
    """Four levels in windows of 64 pixels."""
    from perception.datasets.dota_split import find_sources
    from perception.inference.images.raster import open_windows
    from projects.hbd_net.split import PyramidParams, split

    out = scene.with_name("patches")
    for part, threshold in (("train", 1), ("val", 0)):
        params = PyramidParams(size=64, gap=16, levels="all", context_threshold=threshold)
        split(find_sources([scene / part], "labelTxt"), out / part, params, open_image=open_windows)
    return out


def arguments(scene, patches, joined=False, **more):
    settings = {**TINY, "test_evaluator.label_folder": scene / "val" / "labelTxt", **more}
    settings["test_dataloader.dataset.data_root"] = f"{patches}/"
    if joined:
        for k in range(3):
            settings[f"train_dataloader.dataset.datasets.{k}.data_root"] = f"{patches}/"
    else:
        settings["train_dataloader.dataset.data_root"] = f"{patches}/"
    return settings


def as_options(settings):
    return ["--cfg-options", *(f"{key}={value}" for key, value in settings.items())]


def _config(settings, work_dir):
    """The demo's, as a command line would have it."""
    options = {key: str(value) if isinstance(value, Path) else value for key, value in settings.items()}
    options["model.neck.in_channels"] = [8, 16, 32]
    cfg = load_config("configs/demo/hbd_net.py", options, str(work_dir))
    cfg.launcher, cfg.randomness = "none", dict(seed=0)
    return cfg


def test_the_demo_in_stages(scene, patches, tmp_path, run_tool):
    native, reduced, merged, fused = (tmp_path / name for name in ("native", "reduced", "merged.pth", "fused"))
    plain = arguments(scene, patches)
    done = run_tool("train", "configs/demo/hbd_net_native.py", "--work-dir", native, *as_options(plain))
    assert done.code == 0, done.err[-3000:]
    joined = arguments(scene, patches, joined=True, load_from=native / "epoch_1.pth")
    done = run_tool("train", "configs/demo/hbd_net_reduced.py", "--work-dir", reduced, *as_options(joined))
    assert done.code == 0, done.err[-3000:]
    files = ["--native", native / "epoch_1.pth", "--reduced", reduced / "epoch_1.pth", "--out", merged]
    assert run_tool("merge_stages", *files).code == 0
    apart = as_options(arguments(scene, patches, **TWO_BRANCHES))
    done = run_tool("test", "configs/demo/hbd_net_merged.py", merged, "--work-dir", tmp_path / "apart", *apart)
    assert done.code == 0, done.err[-3000:]
    assert "mAP_800_20000" in done.out + done.err
    together = arguments(scene, patches, **FUSED)
    done = run_tool("test", "configs/demo/hbd_net.py", merged, "--work-dir", tmp_path / "early", *as_options(together))
    assert done.code == 1
    assert "fusion_convs.0.conv.weight" in done.err
    together["load_from"] = merged
    done = run_tool("train", "configs/demo/hbd_net.py", "--work-dir", fused, *as_options(together))
    assert done.code == 0, done.err[-3000:]
    assert "loss_bbox_global" in done.out + done.err
    state = torch.load(fused / "epoch_1.pth", weights_only=False)["state_dict"]
    before = torch.load(merged, weights_only=True)["state_dict"]
    moved = {key.partition(".")[0] for key, value in before.items() if not torch.equal(state[key], value)}
    assert moved >= {
        f"{prefix}{part}" for prefix in ("", "global_") for part in ("backbone", "neck", "rpn_head", "roi_head")
    }
    # What training starts from (a file that may be gone) does not replace what is tested.
    together["load_from"] = tmp_path / "nowhere.pth"
    done = run_tool(
        "test", "configs/demo/hbd_net.py", fused / "epoch_1.pth", "--work-dir", tmp_path / "late", *as_options(together)
    )
    assert done.code == 0, done.err[-3000:]
    assert "AP50_200_800" in done.out + done.err
    together["load_from"] = merged
    runner = build_test_runner(_config(together, tmp_path / "again"), str(fused / "epoch_1.pth"))
    runner.load_or_resume()
    assert all(torch.equal(value, state[key]) for key, value in runner.model.state_dict().items())


def test_resumed_run_equals_the_uninterrupted_one(scene, patches, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)

    def train(work_dir, resume=None):
        options = arguments(scene, patches, **FUSED, **{"train_cfg.max_epochs": 2, "train_dataloader.batch_size": 4})
        checkpoint = {"by_epoch": False, "interval": 1, "max_keep_ckpts": -1}
        options |= {f"default_hooks.checkpoint.{key}": value for key, value in checkpoint.items()}
        cfg = _config(options, work_dir)
        cfg.resume, cfg.load_from = resume is not None, resume
        runner = build_train_runner(cfg)
        runner.train()
        return runner

    whole = train(tmp_path / "whole")
    assert whole.iter >= 4
    assert whole.iter % 2 == 0
    torch.manual_seed(123)
    resumed = train(tmp_path / "resumed", str(tmp_path / "whole" / "iter_1.pth"))
    assert (resumed.iter, resumed.epoch) == (whole.iter, 2)
    for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(one, other), name
