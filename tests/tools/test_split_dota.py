"""`tools/dataset_converters/split_dota.py` as a command line."""

import shlex
import shutil

import pytest

from perception.datasets.synthetic import harbours
from tests.conftest import REPOSITORY

TOOL = "dataset_converters/split_dota"


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("harbours") / "raw"
    harbours.write(root, harbours.Params(num_train=2, num_val=1, min_size=256, max_size=256))
    return root


def test_help_has_an_example(run_tool):
    done = run_tool(TOOL, "--help")
    assert done.code == 0
    assert "python tools/dataset_converters/split_dota.py data/dota/train" in done.out


def test_splits_and_leaves_a_complete_result(run_tool, raw, tmp_path):
    arguments = (raw / "train", raw / "val", "--out", tmp_path / "out", "--sizes", 128, "--gaps", 32)
    done = run_tool(TOOL, *arguments)
    assert done.code == 0
    assert done.out.startswith("made")
    # 256 pixels at steps of 96: 3 x 3 windows of each of three images
    assert "(3 images, 27 patches, " in done.out
    assert len(list((tmp_path / "out" / "annfiles").iterdir())) == 27
    assert run_tool(TOOL, *arguments).out.startswith("already complete")
    other = run_tool(TOOL, *arguments[:-1], 16)
    assert other.code == 1
    assert "gaps [32], not [16]); --overwrite replaces it" in other.err


def test_bad_input_is_one_sentence(run_tool, raw, tmp_path):
    (tmp_path / "broken" / "images").mkdir(parents=True)
    (tmp_path / "broken" / "images" / "a.png").write_bytes(b"no")
    cases = {
        "none/images is missing": (tmp_path / "none",),
        "labelTxt-v1.5 is missing": (raw / "train", "--labels", "labelTxt-v1.5"),
        "have the same name": (raw / "train", raw / "train"),
        "below the size": (raw / "train", "--gaps", 1024),
        "rates must be positive and finite, not (nan,)": (raw / "train", "--rates", "nan"),
        "rates must be positive and finite, not (1.0, inf)": (raw / "train", "--rates", 1, "inf"),
        "rates must be positive and finite, not (0.0,)": (raw / "train", "--rates", 0),
        "rates must be positive and finite, not (-1.0,)": (raw / "train", "--rates", -1),
        "none of 1 images could be read": (tmp_path / "broken", "--no-labels"),
    }
    for message, arguments in cases.items():
        done = run_tool(TOOL, *arguments, "--out", tmp_path / "out")
        assert done.code == 1
        assert message in done.err
        assert not (tmp_path / "out").exists()


def test_unreadable_images_make_the_status_non_zero(run_tool, raw, tmp_path):
    (tmp_path / "raw" / "images").mkdir(parents=True)
    (tmp_path / "raw" / "images" / "a.png").write_bytes(b"no")
    whole = next((raw / "val" / "images").iterdir())
    (tmp_path / "raw" / "images" / "b.png").write_bytes(whole.read_bytes())
    done = run_tool(TOOL, tmp_path / "raw", "--no-labels", "--out", tmp_path / "out")
    assert done.code == 1
    assert "a.png is left out" in done.err
    assert "1 images could not be read" in done.err
    assert len(list((tmp_path / "out" / "images").iterdir())) == 1


def test_labels_without_image_are_named(run_tool, raw, tmp_path):
    shutil.copytree(raw / "val", tmp_path / "raw")
    label = next((tmp_path / "raw" / "labelTxt").iterdir())
    shutil.copy(label, label.with_name("zz.txt"))
    done = run_tool(TOOL, tmp_path / "raw", "--out", tmp_path / "out")
    assert done.code == 1
    assert f"1 label files have no image: {label.with_name('zz.txt')}" in done.err
    assert len(list((tmp_path / "out" / "images").iterdir())) == 1


def test_commands_of_the_page_of_data(run_tool, raw, tmp_path):
    """In a copy of the layout that the page describes; `data/` stands for that copy."""
    for split in ("train", "val"):
        shutil.copytree(raw / split, tmp_path / "data" / "dota" / split)
        shutil.copytree(raw / split / "labelTxt", tmp_path / "data" / "dota" / split / "labelTxt-v1.5")
    shutil.copytree(raw / "val" / "images", tmp_path / "data" / "dota" / "test" / "images")
    lines = (REPOSITORY / "docs" / "data.md").read_text().splitlines()
    commands = [shlex.split(line)[1:] for line in lines if line.startswith(f"python tools/{TOOL}.py")]
    for _, *arguments in commands:
        done = run_tool(TOOL, *(tmp_path / word if word.startswith("data/") else word for word in arguments))
        assert done.code == 0, done.err
    made = {str(path.parent.relative_to(tmp_path / "data")) for path in tmp_path.glob("data/split_*/*/images")}
    sets = {"split_ss_dota": ("trainval", "test", "train", "val")}
    sets |= dict.fromkeys(("split_ms_dota", "split_ss_dotav15"), ("trainval", "test"))
    assert made == {f"{name}/{split}" for name, splits in sets.items() for split in splits}
    assert len(list((tmp_path / "data" / "split_ss_dota" / "trainval" / "annfiles").iterdir())) == 3
    assert not (tmp_path / "data" / "split_ss_dota" / "test" / "annfiles").exists()


def test_aerial_pictures_are_made_as_the_page_says(run_tool, tmp_path):
    lines = (REPOSITORY / "docs" / "data.md").read_text().splitlines()
    commands = [shlex.split(line)[2:] for line in lines if line.startswith("python tools/make_demo_data.py harbours")]
    assert len(commands) == 3
    for arguments in commands:
        out = arguments.index("--out") + 1
        arguments[out] = tmp_path / arguments[out]
        # Fewer and smaller ones, for the sake of time.
        smaller = ("--num-train", 2, "--num-val", 1, "--min-size", 200, "--max-size", 210)
        done = run_tool("make_demo_data", *arguments, *smaller)
        assert done.code == 0, done.err
        assert "(train: 2 images and" in done.out
