"""NWPU VHR-10's published split, and `tools/dataset_converters/split_vhr10.py` as a command line."""

import json
from pathlib import Path

import pytest
import torch

from perception.datasets.nwpu_vhr10 import CLASSES, split_annotations, split_ids
from perception.engine.errors import UserError

TOOL = "dataset_converters/split_vhr10"
RECORDED = torch.load(Path(__file__).parents[1] / "data" / "reference" / "catnet" / "vhr_split.pt", weights_only=True)[
    "outputs"
]


@pytest.fixture
def content():
    """All images, two objects in each; categories in falling order, with underscores and other ids."""
    return dict(
        images=[dict(id=k, file_name=f"{k + 1:03d}.jpg", width=64, height=48) for k in range(650)],
        categories=[dict(id=3 * k + 2, name=CLASSES[k].replace(" ", "_")) for k in reversed(range(10))],
        annotations=[
            dict(id=2 * k + j, image_id=k, category_id=3 * ((k + j) % 10) + 2, bbox=[j, 2, 9, 8], area=72, iscrowd=0)
            for k in range(650)
            for j in range(2)
        ],
    )


def test_recorded_split():
    train, test = split_ids()
    assert train == RECORDED["train_ids_in_drawn_order"]
    assert test == RECORDED["test_ids"]
    assert (len(train), len(test)) == (487, 163)


def test_the_command(run_tool, content, tmp_path):
    source, out = tmp_path / "annotations.json", tmp_path / "vhr" / "annotations"
    source.write_text(json.dumps(content))
    done = run_tool(TOOL, source, "--out", out)
    assert done.code == 0, done.err
    assert "instances_train.json: 487 images, 974 objects" in done.out
    train, test = (json.loads((out / f"instances_{name}.json").read_text()) for name in ("train", "test"))
    assert [image["id"] for image in train["images"]] == RECORDED["train_ids_in_drawn_order"]
    assert {image["id"] for image in test["images"]} == set(RECORDED["test_ids"])
    for part in (train, test):
        assert [(c["id"], c["name"]) for c in part["categories"]] == list(enumerate(CLASSES, start=1))
        for k, annotation in enumerate(part["annotations"]):
            assert annotation["category_id"] == (annotation["image_id"] + k % 2) % 10 + 1
    done = run_tool(TOOL, source, "--out", out)
    assert done.code == 1
    assert "exists" in done.err
    assert run_tool(TOOL, source, "--out", out, "--overwrite").code == 0


def test_other_files_are_refused(run_tool, content, tmp_path):
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({**content, "images": content["images"][1:]}))
    done = run_tool(TOOL, path, "--out", tmp_path / "out")
    assert done.code == 1
    assert "649 images with other ids than 0 to 649" in done.err
    assert not (tmp_path / "out").exists()
    content["categories"][0]["name"] = "vehicel"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="other classes than NWPU VHR-10: it has no 'vehicle'"):
        split_annotations(path)
    content["categories"][0]["name"] = "vehicle"
    content["annotations"][5]["category_id"] = 11000
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="an object of image 2 has the category id 11000"):
        split_annotations(path)
    with pytest.raises(UserError, match="cannot be read"):
        split_annotations(tmp_path / "none.json")
