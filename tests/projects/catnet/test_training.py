"""The demo recipe on a handful of built-in scenes: the tools run it, and an interrupted run ends like a whole one."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from perception.datasets.synthetic import harbours
from perception.engine.config import load_config
from perception.engine.run import build_train_runner
from tests.conftest import REPOSITORY

TINY = {
    "model.backbone.base_channels": 8,
    "model.backbone.stem_channels": 8,
    "model.neck.0.in_channels": [32, 64, 128],
    "model.neck.0.out_channels": 16,
    "model.neck.0.stack_times": 1,
    "model.neck.1.in_channels": 16,
    "model.rpn_head.in_channels": 16,
    "model.rpn_head.feat_channels": 16,
    "model.roi_head.bbox_roi_extractor.out_channels": 16,
    "model.roi_head.mask_roi_extractor.out_channels": 16,
    "model.roi_head.bbox_head.in_channels": 16,
    "model.roi_head.bbox_head.fc_out_channels": 32,
    "model.roi_head.mask_head.in_channels": 16,
    "model.roi_head.mask_head.conv_out_channels": 16,
    "model.test_cfg.rcnn.max_per_img": 10,
    "default_hooks.logger.interval": 1,
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "harbours"
    harbours.write(out, harbours.Params(num_train=4, num_val=2, min_size=128, max_size=160, format="coco"))
    return out


def options(scenes, **more):
    found = {**TINY, **{key.replace("__", "."): value for key, value in more.items()}}
    for split in ("train", "val", "test"):
        found[f"{split}_dataloader.dataset.data_root"] = f"{scenes}/"
        found[f"{split}_dataloader.num_workers"] = 0
        found[f"{split}_dataloader.persistent_workers"] = False
    return found


def train(scenes, work_dir, resume=None, **more):
    cfg = load_config("configs/demo/catnet.py", options(scenes, **more), str(work_dir))
    cfg.launcher, cfg.randomness = "none", dict(seed=0)
    cfg.resume, cfg.load_from = resume is not None, resume
    runner = build_train_runner(cfg)
    runner.train()
    return runner


def test_resumed_run_equals_the_uninterrupted_one(scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    settings = dict(
        train_cfg__max_epochs=2,
        train_cfg__val_interval=10,
        default_hooks__checkpoint__by_epoch=False,
        default_hooks__checkpoint__interval=1,
        default_hooks__checkpoint__max_keep_ckpts=-1,
    )
    whole = train(scenes, tmp_path / "whole", **settings)
    assert whole.iter == 4
    # Within the first epoch, and between the two.
    for iteration in (1, 2):
        torch.manual_seed(123)
        resumed = train(scenes, tmp_path / "resumed", str(tmp_path / "whole" / f"iter_{iteration}.pth"), **settings)
        assert (resumed.iter, resumed.epoch) == (4, 2)
        for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
            assert torch.equal(one, other), name


def test_tools_train_test_and_infer(scenes, tmp_path, run_tool):
    """A folder of images, whole and in tiles: masks in the file of results, and on the pictures."""
    config = "configs/demo/catnet.py"
    arguments = [f"{key}={value}".replace(" ", "") for key, value in options(scenes, train_cfg__max_epochs=1).items()]
    arguments.append("train_cfg.val_interval=1")
    done = run_tool("train", config, "--work-dir", tmp_path, "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    weights = tmp_path / "epoch_1.pth"
    done = run_tool("test", config, weights, "--work-dir", tmp_path, "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    assert "segm_mAP" in done.out + done.err
    for more in ((), ("--tile", 96, "--overlap", 32)):
        out = tmp_path / f"out{len(more)}"
        done = run_tool(
            "infer", config, weights, scenes / "images" / "val", "--out", out, "--score-thr", 0, "--device", "cpu",
            *more, "--cfg-options", *arguments,
        )  # fmt: skip
        assert done.code == 0, done.err[-3000:]
        found = json.loads((out / "predictions.json").read_text())
        assert len(found["images"]) == 2
        assert found["annotations"]
        for entry in found["annotations"]:
            image = found["images"][entry["image_id"] - 1]
            assert entry["segmentation"]["size"] == [image["height"], image["width"]]
        masks = [rle.decode(entry["segmentation"]) for entry in found["annotations"] if entry["image_id"] == 1]
        shown = np.any(masks, 0)
        with (
            Image.open(scenes / "images" / "val" / "000000.jpg") as before,
            Image.open(out / "images" / "000000.jpg") as after,
        ):
            changed = np.abs(np.asarray(before).astype(int) - np.asarray(after)).max(-1) > 8
        assert changed[shown].mean() > 0.5
