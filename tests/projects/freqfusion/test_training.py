"""The demo: trains, resumes exactly, is tested and drawn by the tools."""

import pickle

import cv2
import pytest
import torch

from perception.datasets.synthetic import regions
from perception.engine.config import load_config
from perception.engine.run import build_train_runner, use_amp
from tests.conftest import REPOSITORY

DEMO = "configs/demo/freqfusion.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "regions"
    regions.write(out, regions.Params(num_train=6, num_val=2, min_size=96, max_size=128))
    return out


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def options(folder, **changes):
    loaders = {
        key: value
        for split in ("train", "val", "test")
        for key, value in {
            f"{split}_dataloader.dataset.data_root": f"{folder}/",
            f"{split}_dataloader.num_workers": 0,
            f"{split}_dataloader.persistent_workers": False,
        }.items()
    }
    small = {"train_dataloader.batch_size": 2, "default_hooks.logger.interval": 1, "train_cfg.val_interval": 100}
    return {**loaders, **small, **{key.replace("__", "."): value for key, value in changes.items()}}


def config(folder, work_dir, **changes):
    cfg = load_config(DEMO, options(folder, **changes), str(work_dir))
    cfg.launcher = "none"
    cfg.randomness = dict(seed=0)
    return cfg


def trained(cfg):
    runner = build_train_runner(cfg)
    runner.train()
    return runner.model


def test_resumed_run_equals_the_uninterrupted_one(folder, tmp_path):
    settings = dict(
        train_cfg__max_iters=6,
        default_hooks__checkpoint__interval=3,
        default_hooks__checkpoint__max_keep_ckpts=-1,
    )
    whole = trained(config(folder, tmp_path / "whole", **settings))
    resumed = config(folder, tmp_path / "resumed", **settings)
    resumed.resume, resumed.load_from = True, str(tmp_path / "whole" / "iter_3.pth")
    torch.manual_seed(123)
    second = trained(resumed)
    for (name, one), other in zip(whole.state_dict().items(), second.state_dict().values()):
        assert torch.equal(one, other), name
    started = torch.load(tmp_path / "whole" / "iter_3.pth", weights_only=False)["state_dict"]
    assert any(not torch.equal(value, started[key]) for key, value in whole.state_dict().items())


def test_amp_step_is_finite(folder, tmp_path):
    cfg = config(folder, tmp_path, train_cfg__max_iters=2)
    use_amp(cfg)
    model = trained(cfg)
    assert all(value.isfinite().all() for value in model.state_dict().values())


def test_tools(run_tool, folder, tmp_path):
    values = options(folder, train_cfg__max_iters=2, train_cfg__val_interval=2, default_hooks__checkpoint__interval=2)
    listed = ["--cfg-options", *(f"{key}={value}".replace(" ", "") for key, value in values.items())]
    work = tmp_path / "work"
    done = run_tool("train", DEMO, "--work-dir", work, "--seed", 3, *listed)
    assert done.code == 0, done.err

    dump, pictures, checkpoint = tmp_path / "predictions.pkl", tmp_path / "pictures", work / "iter_2.pth"
    done = run_tool("test", DEMO, checkpoint, "--work-dir", work, "--out", dump, "--show-dir", pictures, *listed)
    assert done.code == 0, done.err
    assert "mIoU" in done.out + done.err
    predictions = pickle.loads(dump.read_bytes())
    shapes = [cv2.imread(str(path)).shape[:2] for path in sorted((folder / "images" / "validation").iterdir())]
    for prediction, shape in zip(predictions, shapes, strict=True):
        labels = prediction["pred_sem_seg"]["data"]
        assert labels.dtype == torch.uint8
        assert tuple(labels.shape[-2:]) == shape
        assert labels.max() < 10
        assert "seg_logits" not in prediction
        assert "gt_sem_seg" not in prediction
    drawn = sorted(path.name for path in pictures.glob("*.*"))
    assert drawn.pop(0) == "index.html"
    assert drawn == ["regions_val_00000001.jpg", "regions_val_00000002.jpg"]
    # Ground truth and prediction side by side.
    assert cv2.imread(str(pictures / drawn[0])).shape[:2] == (shapes[0][0], 2 * shapes[0][1])


def test_the_twin_differs_by_fusion_alone():
    ours, plain = (load_config(f"configs/demo/freqfusion{name}.py") for name in ("", "_plain"))
    assert plain.model.neck.type.__name__ == "FPN"
    ours.model.neck = plain.model.neck
    for cfg in (ours, plain):
        cfg.work_dir = None
    assert str(ours.to_dict()) == str(plain.to_dict())


def test_missing_data_says_how_to_make_it(run_tool, tmp_path):
    values = {"train_dataloader.dataset.data_root": f"{tmp_path}/none/"}
    done = run_tool("train", DEMO, "--work-dir", tmp_path, "--cfg-options", *(f"{k}={v}" for k, v in values.items()))
    assert done.code == 1
    assert "images/training" in done.err
    assert "annotations/training" in done.err
    assert len(done.err.strip().splitlines()) == 1
