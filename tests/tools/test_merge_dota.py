"""`tools/dataset_converters/merge_dota.py` as a command line."""

import numpy as np
import pytest

from perception.evaluation.rotated_ap import Found
from perception.evaluation.task1 import merge_patches, write_task1

TOOL = "dataset_converters/merge_dota"
CLASSES = ("ship", "plane")


@pytest.fixture
def patches():
    """Crowded detections in overlapping patches of two images."""
    rng = np.random.default_rng(0)
    found = {}
    for image in ("P1", "odd__name"):
        for x in (0, 60):
            boxes = np.concatenate(
                [rng.uniform(0, 100, (40, 2)), rng.uniform(10, 40, (40, 2)), rng.uniform(-1.5, 1.5, (40, 1))], 1
            )
            found[f"{image}__100__{x}___30"] = Found(boxes, rng.uniform(size=40), rng.integers(0, 2, 40))
    return found


def rows(folder, name):
    lines = [line.split() for line in (folder / f"Task1_{name}.txt").read_text().splitlines()]
    return [line[0] for line in lines], np.array([line[1:] for line in lines], float)


def test_files_merge_as_boxes_do(run_tool, patches, tmp_path):
    write_task1(tmp_path / "patches", patches, CLASSES)
    done = run_tool(TOOL, tmp_path / "patches", "--out", tmp_path / "out", "--iou-thr", 0.3)
    assert done.code == 0, done.err
    write_task1(tmp_path / "expected", merge_patches(patches.items(), 0.3), CLASSES)
    total = 0
    for name in CLASSES:
        (images, values), (wanted_images, wanted) = (rows(tmp_path / who, name) for who in ("out", "expected"))
        assert images == wanted_images
        np.testing.assert_allclose(values, wanted, atol=0.011)
        total += len(images)
    assert f"{total} of 160 detections" in done.out
    assert 40 < total < 140
    assert (tmp_path / "out" / "out.zip").is_file()


def test_bad_input_is_one_sentence(run_tool, tmp_path):
    done = run_tool(TOOL, tmp_path, "--out", tmp_path / "out")
    assert done.code == 1
    assert "holds no Task1_CLASS.txt files" in done.err
    for line, message in {
        b"P1 0.5 1 2 3": "Task1_ship.txt, line 1: expected a name, a score and 8 coordinates",
        b"P1 0.5 0 0 1 0 1 1 0 1": "Task1_ship.txt, line 1: 'P1' is not the name of a patch",
        b"P1__9__0___0 0.5 0 0 1 0 1 1 0 1\nCaf\xe9": "Task1_ship.txt, line 2: not UTF-8",
    }.items():
        (tmp_path / "Task1_ship.txt").write_bytes(line + b"\n")
        done = run_tool(TOOL, tmp_path, "--out", tmp_path / "out")
        assert done.code == 1
        assert message in done.err
        assert not (tmp_path / "out").exists()
    done = run_tool(TOOL, tmp_path, "--out", tmp_path)
    assert done.code == 2
    assert "another folder" in done.err


def test_help_has_an_example(run_tool):
    done = run_tool(TOOL, "--help")
    assert done.code == 0
    assert "python tools/dataset_converters/merge_dota.py work_dirs/patch_results" in done.out
