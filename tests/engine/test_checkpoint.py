"""Checkpoint files: what is read, what is refused, and in which words."""

import argparse
import os
import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer, MessageHub
from mmengine.runner import CheckpointLoader
from torch import nn

from perception.engine import checkpoint as checkpoints
from perception.engine.checkpoint import CheckpointError, load_checkpoint_file, load_weights, state_dict_of


class _RunsCode:
    """An object whose unpickling creates a file: the proof that code ran."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class _MakesBytes:
    def __reduce__(self):
        return bytes, (1 << 40,)


class _CallsGetattr:
    def __reduce__(self):
        return getattr, (HistoryBuffer, "__init__")


@pytest.fixture
def restored_loader():
    schemes = CheckpointLoader._schemes
    yield
    CheckpointLoader._schemes = schemes


def test_everything_that_mmengine_saves_comes_back(tmp_path):
    losses = HistoryBuffer([1.0, 3.0], [1, 1])
    hub = MessageHub.get_instance("test_everything_that_mmengine_saves_comes_back")
    hub.update_scalar("train/loss", 2.5)
    hub.update_info("best", np.float64(0.25))
    saved = {
        "state_dict": OrderedDict(weight=torch.arange(3.0)),
        "message_hub": hub.state_dict(),
        "meta": {
            "dataset_meta": {"classes": ("ship", "plane"), "palette": [(1, 2, 3), (4, 5, 6)]},
            "array": np.arange(4, dtype=np.uint8),
            "scalars": [np.float32(0.5), np.int64(7), np.bool_(True), np.str_("le90")],
            "cfg": ConfigDict(model={"type": "RankDETR"}),
            "args": argparse.Namespace(lr=1e-4),
            "losses": losses,
        },
    }
    torch.save(saved, tmp_path / "epoch_1.pth")

    loaded = load_checkpoint_file(tmp_path / "epoch_1.pth")

    assert torch.equal(loaded["state_dict"]["weight"], torch.arange(3.0))
    meta = loaded["meta"]
    assert meta["dataset_meta"] == saved["meta"]["dataset_meta"]
    assert meta["array"].tolist() == [0, 1, 2, 3]
    assert meta["scalars"] == [0.5, 7, True, "le90"]
    assert meta["cfg"].model.type == "RankDETR"
    assert meta["args"].lr == 1e-4
    assert meta["losses"].mean() == 2.0
    assert loaded["message_hub"]["log_scalars"]["train/loss"].current() == 2.5
    assert loaded["message_hub"]["runtime_info"]["best"] == 0.25


@pytest.mark.parametrize("name", ["numpy.core.multiarray", "numpy._core.multiarray"])
def test_numpy_scalars_of_either_numpy_generation(tmp_path, name):
    torch.save({"best": np.float64(0.5)}, tmp_path / "new.pth", _use_new_zipfile_serialization=False)
    other = (tmp_path / "new.pth").read_bytes().replace(b"numpy._core.multiarray", name.encode())
    (tmp_path / "other.pth").write_bytes(other)
    assert load_checkpoint_file(tmp_path / "other.pth")["best"] == 0.5


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_by_name_and_never_runs(tmp_path, zipped):
    evidence = tmp_path / "evidence"
    file = tmp_path / "evil.pth"
    torch.save({"state_dict": {}, "extra": _RunsCode(evidence)}, file, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"evil\.pth is refused: it holds posix\.mkdir"):
        load_checkpoint_file(file)
    assert not evidence.exists()


def test_getattr_reaches_the_statistics_of_a_history_buffer_only(tmp_path):
    torch.save({"extra": _CallsGetattr()}, tmp_path / "attribute.pth")
    with pytest.raises(CheckpointError, match=r"refused: it holds getattr\(HistoryBuffer,'__init__'\)"):
        load_checkpoint_file(tmp_path / "attribute.pth")


def test_empty_arrays_are_read_and_bytes_are_made_of_nothing_else(tmp_path):
    torch.save({"left": np.zeros(0, dtype=np.int64), "pair": np.arange(2)}, tmp_path / "arrays.pth")
    loaded = load_checkpoint_file(tmp_path / "arrays.pth")
    assert loaded["left"].shape == (0,)
    assert loaded["left"].dtype == np.int64
    assert loaded["pair"].tolist() == [0, 1]
    torch.save({"extra": _MakesBytes()}, tmp_path / "bytes.pth")
    with pytest.raises(CheckpointError, match="refused: it holds bytes"):
        load_checkpoint_file(tmp_path / "bytes.pth")


def test_the_allow_list_is_taken_back_after_loading(tmp_path):
    torch.save({"args": argparse.Namespace(a=1)}, tmp_path / "a.pth")
    load_checkpoint_file(tmp_path / "a.pth")
    with pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "a.pth", weights_only=True)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "does not exist"),
        (b"", r"is empty \(0 bytes\)"),
        (b"<html>404</html>", "cannot be read as a PyTorch checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "cannot be read as a PyTorch checkpoint"),
        ("truncated", "is damaged or truncated"),
        ("half", "is damaged or truncated"),
        ("folder", "is a folder"),
        ("tensor", "holds a Tensor, not a dictionary"),
        ("module", r"is refused: it holds torch\.nn\.modules\.linear\.Linear"),
    ],
)
def test_unusable_files_are_one_clear_sentence(tmp_path, content, words):
    file = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content in ("truncated", "half"):
        torch.save({"state_dict": {"weight": torch.zeros(1000)}}, file)
        size = file.stat().st_size
        os.truncate(file, size // 2 if content == "half" else size - 10)
    elif content == "folder":
        file.mkdir()
    elif content == "tensor":
        torch.save(torch.zeros(2), file)
    elif content == "module":
        torch.save(nn.Linear(1, 1), file)
    with pytest.raises(CheckpointError, match=words) as caught:
        load_checkpoint_file(file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_install_routes_mmengine_through_the_safe_loader(tmp_path, restored_loader):
    evidence = tmp_path / "evidence"
    torch.save({"state_dict": {}, "extra": _RunsCode(evidence)}, tmp_path / "evil.pth")
    torch.save({"state_dict": {"weight": torch.ones(1)}}, tmp_path / "good.pth")
    checkpoints.install()
    checkpoints.install()
    with pytest.raises(CheckpointError):
        CheckpointLoader.load_checkpoint(str(tmp_path / "evil.pth"), map_location="cpu")
    assert not evidence.exists()
    loaded = CheckpointLoader.load_checkpoint(str(tmp_path / "good.pth"), map_location="cpu")
    assert loaded["state_dict"]["weight"].item() == 1


def test_weights_are_loaded_whole(tmp_path):
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    prefixed = {f"module.{key}": value for key, value in source.state_dict().items()}
    unknown = load_weights(target, {"state_dict": prefixed | {"module.head.bias": torch.zeros(1)}}, "a.pth")
    assert unknown == ["head.bias"]
    assert torch.equal(target.weight, source.weight)


def test_bare_state_dicts_keep_their_metadata():
    bare = nn.BatchNorm2d(2).state_dict()
    assert state_dict_of(bare)._metadata == bare._metadata


def test_counters_of_batch_norm_may_be_missing():
    weights = {key: value for key, value in nn.BatchNorm2d(2).state_dict().items() if "num_batches" not in key}
    assert load_weights(nn.BatchNorm2d(2), weights, "old.pth") == []


def test_a_checkpoint_of_another_model_says_how_many_weights_differ():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
    weights = {"0.weight": torch.zeros(5, 3), "0.bias": torch.zeros(2), "neck.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, {"state_dict": weights}, "other.pth")
    assert "of its 4 weights, 2 missing (first: 1.weight)" in str(caught.value)
    assert "1 of another shape (first: 0.weight)" in str(caught.value)
    assert "1 unknown to the model (first: neck.weight)" in str(caught.value)


def test_missing_weights_alone_are_refused_too():
    with pytest.raises(CheckpointError, match=r"of its 2 weights, 1 missing \(first: bias\)"):
        load_weights(nn.Linear(3, 2), {"weight": torch.zeros(2, 3)}, "half.pth")
