"""HBD-Net over images of a folder: both branches, and what is around native patches."""

import json

import pytest
import torch
from mmengine.registry import MODELS, init_default_scope

from perception.datasets.synthetic import bridges
from perception.engine.config import drop_initial_weights, load_config
from perception.geometry.pyramid import contexts_of
from projects.hbd_net.detector import HBDNet
from tests.conftest import REPOSITORY

CONFIG = REPOSITORY / "configs" / "demo" / "hbd_net.py"


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    root = tmp_path_factory.mktemp("folder") / "bridges"
    bridges.write(root, bridges.Params(num_train=1, num_val=1, min_size=400, max_size=600))
    return root / "val" / "images"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    cfg = load_config(str(CONFIG), {})
    drop_initial_weights(cfg)
    init_default_scope("mmrotate")
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    path = tmp_path_factory.mktemp("weights") / "weights.pth"
    meta = {"dataset_meta": {"classes": ("bridge",), "palette": [(255, 64, 64)]}}
    torch.save({"state_dict": model.state_dict(), "meta": meta}, path)
    return path


def test_the_command_of_the_page(scene, checkpoint, run_tool, tmp_path, monkeypatch):
    seen = []
    predict = HBDNet.predict

    def watched(self, inputs, samples, rescale=True, context=None):
        seen.append(([sample.factor for sample in samples], None if context is None else list(context.factors)))
        return predict(self, inputs, samples, rescale=rescale, context=context)

    monkeypatch.setattr(HBDNet, "predict", watched)
    records = {}
    for option in ("--fuse-at-test", "--no-fuse-at-test"):
        out = tmp_path / option
        done = run_tool(
            "infer", CONFIG, checkpoint, scene, "--out", out, "--score-thr", 0, "--batch-size", 2, "--no-images", option
        )
        assert done.code == 0, done.err
        records[option] = json.loads((out / "predictions.jsonl").read_text())
    fused, apart = records["--fuse-at-test"], records["--no-fuse-at-test"]
    width, height = fused["width"], fused["height"]
    assert fused["levels"][0]["factor"] == 1
    assert [level["factor"] for level in fused["levels"]] == [2**k for k in range(len(fused["levels"]))]
    windows = sum(level["windows"] for level in fused["levels"])
    assert sum(len(factors) for factors, _ in seen) == 2 * windows
    with_context = [(factors, context) for factors, context in seen if context is not None]
    assert sum(len(factors) for factors, _ in with_context) == fused["levels"][0]["windows"]
    assert {factor for factors, _ in with_context for factor in factors} == {1}
    assert with_context[0][1][0] == contexts_of(width, height, 0, 0, 256)[0].factor == 2
    # What is around changes what is found.
    assert len(fused["detections"]) > 10
    assert fused["detections"] != apart["detections"]
    assert all(entry["label"] == "bridge" for entry in fused["detections"])


def test_recipes_ask_for_pyramids():
    for name, fuses in (("hbd_net", None), ("hbd_net/fuse_at_test", True), ("hbd_net/from_stages", None)):
        kind = load_config(str(REPOSITORY / "configs" / f"{name}.py"), {}).folder_kind
        assert kind["type"].__name__ == "PyramidImages"
        assert (kind["patch"], kind["gap"], kind.get("fuse_at_test")) == (1024, 200, fuses)
