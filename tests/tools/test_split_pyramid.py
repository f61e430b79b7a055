"""`tools/dataset_converters/split_pyramid.py` as a command line."""

import shlex
import shutil

import pytest

from perception.datasets.synthetic import harbours
from tests.conftest import REPOSITORY

TOOL = "dataset_converters/split_pyramid"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("scenes") / "raw"
    harbours.write(root, harbours.Params(num_train=2, num_val=1, min_size=256, max_size=256))
    return root


def test_splits_and_leaves_a_complete_result(run_tool, raw, tmp_path):
    arguments = (raw / "train", "--out", tmp_path / "out", "--size", 96, "--gap", 16)
    done = run_tool(TOOL, *arguments)
    assert done.code == 0, done.err
    # 256 pixels at steps of 80: 3 x 3 windows of each image, 2 x 2 of its half; its quarter does not fill one.
    first, native, half = done.out.splitlines()
    assert first.startswith("made")
    assert "native: 2 images" in native
    assert "in 18 patches" in native
    assert "in 8 patches" in half
    assert run_tool(TOOL, *arguments).out.startswith("already complete")
    every = run_tool(
        TOOL, raw / "val", "--out", tmp_path / "all", "--size", 96, "--gap", 16, "--levels", "all", "--no-labels"
    )
    assert "  down4: 1 images, 0 objects in 1 patches" in every.out
    other = run_tool(TOOL, *arguments[:-1], 20)
    assert other.code == 1
    assert "gap 16, not 20); --overwrite replaces it" in other.err


def test_bad_input_is_one_sentence(run_tool, raw, tmp_path):
    (tmp_path / "broken" / "images").mkdir(parents=True)
    (tmp_path / "broken" / "images" / "a.png").write_bytes(b"no")
    cases = {
        "none/images is missing": (tmp_path / "none",),
        "below the size": (raw / "train", "--gap", 1024),
        "context_threshold must be at least 0, not -1.0": (raw / "train", "--context-threshold", -1),
        "--workers must be at least 1, not 0": (raw / "train", "--workers", 0),
        "none of 1 images could be read": (tmp_path / "broken", "--no-labels"),
    }
    for message, arguments in cases.items():
        done = run_tool(TOOL, *arguments, "--out", tmp_path / "out")
        assert done.code == 1
        assert message in done.err
        assert not (tmp_path / "out").exists()


def test_what_is_left_out_is_named(run_tool, raw, tmp_path):
    folder = tmp_path / "train"
    shutil.copytree(raw / "train", folder)
    (folder / "images" / "zz.png").write_bytes(b"no")
    (folder / "labelTxt" / "alone.txt").write_text("")
    done = run_tool(TOOL, folder, "--out", tmp_path / "out")
    assert done.code == 1
    assert "zz.png is left out" in done.err
    assert "1 images could not be read and are left out" in done.err
    assert "1 label files have no image: " in done.err
    assert (tmp_path / "out" / "dataset.json").is_file()


def test_commands_of_the_pages(run_tool, raw, tmp_path):
    """In a copy of the layout that the pages describe; `data/` stands for that copy."""
    for data in ("glh_bridge", "demo/bridges"):
        for split in ("train", "val"):
            shutil.copytree(raw / split, tmp_path / "data" / data / split)
    pages = (REPOSITORY / "docs" / "data.md", REPOSITORY / "projects" / "hbd_net" / "README.md")
    lines = [line for page in pages for line in page.read_text().splitlines()]
    commands = {line for line in lines if line.startswith(f"python tools/{TOOL}.py")}
    for command in sorted(commands):
        arguments = [tmp_path / word if word.startswith("data/") else word for word in shlex.split(command)[2:]]
        done = run_tool(TOOL, *arguments)
        assert done.code == 0, done.err
    made = {str(path.parents[1].relative_to(tmp_path / "data")) for path in tmp_path.glob("data/**/native/images")}
    sets = ("glh_bridge_patches", "demo/bridge_patches")
    assert made == {f"{name}/{split}" for name in sets for split in ("train", "val")}
