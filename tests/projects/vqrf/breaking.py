"""Runs and scenes to break, ways to break files, and what a command has to say of it."""

import json
import os
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml


@dataclass
class Place:
    """A folder in which a case may break what it likes."""

    folder: Path
    scene: Path
    run: Path  # of a finished run, with its file
    stopped: Path  # of one that was stopped in its second stage

    @property
    def file(self) -> Path:
        return self.run / "field.vqrf"

    @property
    def checkpoint(self) -> Path:
        (path,) = (self.run / "nerfstudio_models").iterdir()
        return path

    def write(self, name: str, content: bytes | str | dict | list) -> Path:
        path = self.folder / name
        if isinstance(content, (dict, list)):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path


def copy_run(trainer, out: Path, scene: Path) -> Path:
    """A run that nerfstudio's commands find in another place, with another scene."""
    config = deepcopy(trainer.config)
    config.output_dir, config.pipeline.datamanager.data = out, scene
    folder = config.get_base_dir()
    shutil.copytree(trainer.base_dir, folder)
    (folder / "config.yml").write_text(yaml.dump(config))
    return folder


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


class Attack:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def assert_one_sentence(command: Callable[[], object], place: Place) -> None:
    before = files_of(place.folder)
    with pytest.raises(SystemExit) as stop:
        command()
    message = stop.value.code
    assert isinstance(message, str), f"exit status {message!r} without a sentence"
    assert message.startswith("error: ")
    assert "\n" not in message
    assert 20 < len(message) < 700
    assert "Traceback" not in message
    assert "weights_only" not in message
    assert files_of(place.folder) == before
