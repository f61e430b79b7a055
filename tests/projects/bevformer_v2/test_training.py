"""The tools run the demo's recipe on a small driving set, and an interrupted run ends like a whole one."""

import json

import pytest
import torch
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import DATASETS, MODELS, init_default_scope

from perception.engine.config import load_config
from perception.engine.run import build_train_runner
from perception.inference.rigs.options import Choice
from perception.inference.rigs.predictor import RigPredictor
from perception.inference.rigs.reader import RigReader
from tests.conftest import REPOSITORY

DEMO = "configs/demo/bevformer_v2.py"


def options(folder, **more):
    """Of the demo's config, shrunk further and on another set, whose images are 96 x 54."""
    found = {key.replace("__", "."): value for key, value in more.items()}
    for split in ("train", "val", "test"):
        loader = f"{split}_dataloader"
        found[f"{loader}.dataset.data_root"] = str(folder)
        found[f"{loader}.num_workers"] = 0
        found[f"{loader}.batch_size"] = 2
        crop = f"{loader}.dataset.pipeline.{4 if split == 'train' else 1}"
        found |= {f"{crop}.size": (54, 96), f"{crop}.top": 14, f"{crop}.heights": (40,)}
    for split in ("val", "test"):
        found[f"{split}_evaluator.data_root"] = str(folder)
    found |= {
        "model.img_backbone.base_channels": 8,
        "model.img_backbone.stem_channels": 8,
        "model.img_neck.in_channels": [16, 32, 64],
        "model.img_neck.out_channels": 32,
        "model.pts_bbox_head.embed_dims": 32,
        "model.pts_bbox_head.bev_size": (12, 12),
        "model.pts_bbox_head.num_queries": 20,
        "model.fcos3d_bbox_head.in_channels": 32,
        "param_scheduler.0.end": 2,
    }
    return found


def train(folder, work_dir, resume=None, **more):
    cfg = load_config(DEMO, options(folder, **more), str(work_dir))
    cfg.launcher, cfg.randomness = "none", dict(seed=0)
    cfg.resume, cfg.load_from = resume is not None, resume
    runner = build_train_runner(cfg)
    runner.train()
    return runner


@pytest.mark.slow
def test_resumed_run_equals_the_uninterrupted_one(driving_folder, tmp_path, monkeypatch):
    """Of a model of two frames with dropout, from within an epoch."""
    monkeypatch.chdir(REPOSITORY)
    settings = dict(
        train_cfg__max_epochs=2,
        train_cfg__val_interval=10,
        train_dataloader__dataset__frame_offsets=(-1, 0),
        model__pts_bbox_head__transformer__frames=(-1, 0),
        model__pts_bbox_head__transformer__fusion_channels=32,
        model__pts_bbox_head__transformer__dropout=0.1,
        default_hooks__checkpoint__by_epoch=False,
        default_hooks__checkpoint__max_keep_ckpts=-1,
    )
    whole = train(driving_folder, tmp_path / "whole", **settings)
    assert (whole.iter, whole.epoch) == (4, 2)
    torch.manual_seed(123)
    resumed = train(driving_folder, tmp_path / "resumed", str(tmp_path / "whole" / "iter_3.pth"), **settings)
    assert (resumed.iter, resumed.epoch) == (4, 2)
    for (name, one), other in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(one, other), name


@pytest.mark.slow
def test_tools_train_and_test_the_demo(driving_folder, tmp_path, run_tool):
    settings = options(driving_folder, train_cfg__max_epochs=1, train_cfg__val_interval=10)
    arguments = [f"{key}={value}".replace(" ", "") for key, value in settings.items()]
    done = run_tool("train", DEMO, "--work-dir", tmp_path, "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    kept = f"test_evaluator.outfile_prefix={tmp_path / 'tested'}"
    done = run_tool("test", DEMO, tmp_path / "epoch_1.pth", "--work-dir", tmp_path, "--cfg-options", *arguments, kept)
    assert done.code == 0, done.err[-3000:]
    for name in ("nuscenes/NDS", "nuscenes/mAP"):
        assert name in done.out + done.err
    out = tmp_path / "found"
    more = ("--out", out, "--split", "mini_val", "--workers", 1, "--no-images")
    done = run_tool("infer", DEMO, tmp_path / "epoch_1.pth", driving_folder, *more, "--cfg-options", *arguments)
    assert done.code == 0, done.err[-3000:]
    tested, found = (
        json.loads((folder / "results_nusc.json").read_text())["results"] for folder in (tmp_path / "tested", out)
    )
    assert found.keys() == tested.keys()
    for token, rows in tested.items():
        assert len(found[token]) == len(rows) > 50
        for row, other in zip(rows[:20], found[token]):
            assert other["detection_score"] == pytest.approx(row["detection_score"], abs=1e-5)


@pytest.mark.slow
def test_a_folder_is_seen_as_the_data_set_is(driving_folder, tmp_path, monkeypatch):
    """A model of two frames: images are looked at once, and give what both frames' images give together."""
    monkeypatch.chdir(REPOSITORY)
    settings = dict(
        test_dataloader__dataset__frame_offsets=(-1, 0),
        model__pts_bbox_head__transformer__frames=(-1, 0),
        model__pts_bbox_head__transformer__fusion_channels=32,
    )
    cfg = load_config(DEMO, options(driving_folder, **settings), str(tmp_path))
    init_default_scope("mmdet")
    model = MODELS.build(cfg.model).eval()
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    reader = RigReader(Choice(split="mini_val"))
    sources = reader.scan(driving_folder, (), tmp_path).sources
    predictor = RigPredictor(model, Compose(cfg.test_dataloader.dataset.pipeline[1:]), reader)
    predictor.begin(sources)
    assert len(sources) == len(dataset) == 3
    for number, source in enumerate(sources):
        found = predictor.step(predictor.prepare(source, reader.read(source, alone=True)))
        expected = model.test_step(pseudo_collate([dataset[number]]))[0]
        assert (expected.token, tuple(expected.offsets)) == (source.details.token, found.offsets)
        torch.testing.assert_close(found.scores, expected.pred_instances.scores, atol=1e-5, rtol=1e-4)
        # The order of equal scores is not defined.
        by_score = expected.pred_instances.bboxes_3d[:10]
        torch.testing.assert_close(found.boxes[:10], by_score, atol=1e-3, rtol=1e-3)
        # A run that is taken up here goes on with the same frames.
        state = predictor.state()
        predictor.restore(sources, state)
