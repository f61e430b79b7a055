"""Which checkpoint a run goes on from, and what happens to checkpoints when the disk is full."""

import errno
import zipfile
from pathlib import Path

import pytest
import torch

from perception.datasets.synthetic import radiance
from perception.engine.atomic import OutputError, output_folder, replacing
from perception.studio.checkpoints import check_folder_for_evaluation, chosen_checkpoint, latest_checkpoint
from perception.studio.errors import SceneError
from tests.studio.toy import make_trainer, toy_config

pytestmark = pytest.mark.xdist_group("nerfstudio")


@pytest.fixture
def folder(tmp_path):
    """Three checkpoints and other files."""
    for step in (5, 12, 250):
        with zipfile.ZipFile(tmp_path / f"step-{step:09d}.ckpt", "w") as archive:
            archive.writestr("data", str(step))
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".DS_Store").write_text("")
    (tmp_path / "step-000000900.ckpt.part").write_text("")
    return tmp_path


def test_stray_files_are_passed_over(folder, tmp_path):
    config = toy_config(tmp_path, tmp_path)
    config.load_dir = folder
    assert chosen_checkpoint(config).name == latest_checkpoint(folder).name == "step-000000250.ckpt"
    config.load_step = 12
    assert chosen_checkpoint(config).name == "step-000000012.ckpt"
    config.load_step = 13
    with pytest.raises(SceneError, match="no checkpoint of step 13, but of step 5, 12, 250"):
        chosen_checkpoint(config)
    config.load_dir = config.load_step = None
    assert chosen_checkpoint(config) is None


def test_what_other_commands_stumble_over_is_said(folder):
    check_folder_for_evaluation(folder / "of a run that begins")
    with pytest.raises(SceneError, match=r"holds \.DS_Store beside the checkpoints"):
        check_folder_for_evaluation(folder)
    for path in folder.iterdir():
        if path.suffix != ".ckpt":
            path.unlink()
    check_folder_for_evaluation(folder)
    latest = latest_checkpoint(folder)
    latest.write_bytes(latest.read_bytes()[:-5])
    with pytest.raises(SceneError, match="damaged or cut short: without it the one of step 12 counts"):
        check_folder_for_evaluation(folder)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), "writing failed"),
    ],
)
def test_a_full_disk_costs_one_checkpoint(tmp_path, monkeypatch, fault, reason):
    radiance.write(tmp_path / "scene", radiance.Params(num_train=3, num_val=1, num_test=1, size=16, num_objects=1))
    trainer = make_trainer(toy_config(tmp_path / "scene", tmp_path))
    trainer.save_checkpoint(1)

    def full(content, path):
        path.write_bytes(b"half")
        raise fault

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(SceneError, match=f"checkpoint of step 2 cannot be written .*{reason}.*--load-dir"):
        trainer.save_checkpoint(2)
    assert [path.name for path in trainer.checkpoint_dir.iterdir()] == ["step-000000001.ckpt"]
    assert not list(trainer.base_dir.rglob("*unfinished*"))


def test_a_full_disk_leaves_no_empty_settings(tmp_path, monkeypatch):
    config = toy_config(tmp_path / "scene", tmp_path / "out")
    (tmp_path / "out").mkdir()

    def full(path, *_):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(SceneError, match=r"cannot write .*config\.yml: No space left on device"):
        config.save_config()
    assert not list((tmp_path / "out").iterdir())


def test_outputs_that_cannot_be_written_are_one_sentence(tmp_path):
    (tmp_path / "file").write_text("mine")
    for path, reason in (("nothing/new", "No such file"), ("file/new", "Not a directory"), (".", "it is a folder")):
        with pytest.raises(OutputError, match=reason), replacing(tmp_path / path) as file:
            file.write(b"x")
    with pytest.raises(OutputError, match="No space left"), replacing(tmp_path / "new"):
        raise OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(OSError, match="other") as raised, replacing(tmp_path / "new"):
        raise FileNotFoundError(errno.ENOENT, "what is read meanwhile", "other")
    assert not isinstance(raised.value, OutputError)
    with pytest.raises(OutputError, match="file is a file, not a folder"):
        output_folder(tmp_path / "file" / "deeper" / "still")
    assert output_folder(tmp_path / "deep" / "er").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"file", "deep"}
