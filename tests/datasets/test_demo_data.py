"""What a run says of demo data that are missing: commands that exist, of the data that the demos' pages speak of."""

import re
import shlex

import pytest

from perception.commands import load_command
from perception.datasets.checks.built import look_at_built
from perception.datasets.checks.config import data_sets
from perception.datasets.demo_data import COMMANDS, how_to_make
from perception.datasets.tracklets.kitti import KittiTracklets
from perception.engine.config import load_config
from perception.engine.errors import UserError
from tests.conftest import REPOSITORY

DEMOS = sorted((REPOSITORY / "configs" / "demo").glob("*.py"))


@pytest.mark.parametrize("path", DEMOS, ids=lambda path: path.stem)
def test_the_data_of_every_demo_can_be_made(path):
    folders = set(re.findall(r"data/demo/\w+", str(load_config(str(path)).to_dict())))
    assert folders
    assert all(how_to_make(folder) for folder in folders)


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_are_those_of_the_pages(name):
    pages = [*REPOSITORY.glob("projects/*/README.md"), *REPOSITORY.glob("configs/**/*.py")]
    text = " ".join(" ".join(page.read_text() for page in pages).split())
    for command in COMMANDS[name]:
        assert command in text
        words = shlex.split(command)
        assert (REPOSITORY / words[1]).is_file()
        if words[1] == "tools/make_demo_data.py":
            load_command("make-data").make_parser(words[2:]).parse_args(words[2:])
    assert f" --out data/demo/{name}" in how_to_make(f"data/demo/{name}/train")


def test_other_folders_are_not_of_a_demo(tmp_path):
    for folder in (tmp_path, "data/coco", "data/demo", "data/demo/mine", "shapes"):
        assert how_to_make(folder) is None


def test_missing_tracks_and_towns_are_made_by_a_command(tmp_path, monkeypatch):
    towns = data_sets(load_config(str(REPOSITORY / "configs" / "demo" / "unifygeo.py")), ("train",))[0]
    monkeypatch.chdir(tmp_path)
    section, _ = look_at_built(towns)
    assert section.title == "train (data/demo/cities)"
    (error,) = section.findings.errors
    assert re.search("^data/demo/cities/.* is missing; make it with: .*--train-cameras 400$", str(error))
    with pytest.raises(UserError, match=r"has no folder calib: .*; make the built-in streets with: .*--rate 30$"):
        KittiTracklets("data/demo/tracking/training")
