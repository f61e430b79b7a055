"""Built-in grounds and things: exact label maps in the layout of ADE20K, read by mmseg."""

import json
from collections import Counter

import cv2
import mmseg.datasets  # noqa: F401  (registers the data sets)
import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS

from perception.datasets.synthetic import regions
from perception.datasets.synthetic.regions import METAINFO, REGION_CLASSES, Params, Scene

SMALL = Params(num_train=5, num_val=2, min_size=96, max_size=112)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("data") / "regions"
    summary = regions.write(out, SMALL)
    assert summary.created
    return out


def scene(**changes):
    values = {**vars(regions.scene_of(SMALL, "training", 0)), **changes}
    return Scene(**values)


def test_files_are_those_of_ade20k(folder):
    for split, count in (("training", 5), ("validation", 2)):
        images = sorted((folder / "images" / split).iterdir())
        maps = sorted((folder / "annotations" / split).iterdir())
        assert [path.stem for path in images] == [path.stem for path in maps]
        assert len(images) == count
        for image, labels in zip(images, maps):
            picture, values = cv2.imread(str(image)), cv2.imread(str(labels), cv2.IMREAD_UNCHANGED)
            assert values.dtype == np.uint8
            assert picture.shape[:2] == values.shape
            assert values.max() <= len(REGION_CLASSES)
    record = json.loads((folder / "dataset.json").read_text())
    assert record["counts"]["training"]["images"] == 5


def test_mmseg_reads_it(folder):
    """What the reader sees as 255 and as class k is 0 and k + 1 in the files."""
    dataset = DATASETS.build(
        dict(
            type="mmseg.BaseSegDataset",
            data_root=str(folder),
            data_prefix=dict(img_path="images/training", seg_map_path="annotations/training"),
            metainfo=METAINFO,
            reduce_zero_label=True,
            pipeline=[
                dict(type="mmseg.LoadImageFromFile"),
                dict(type="mmseg.LoadAnnotations", reduce_zero_label=True),
                dict(type="mmseg.PackSegInputs"),
            ],
        )
    )
    assert len(dataset) == 5
    for index in range(5):
        image, labels = regions.render(regions.scene_of(SMALL, "training", index))
        sample = dataset[index]
        read = sample["data_samples"].gt_sem_seg.data[0]
        expected = torch.from_numpy(labels.astype(np.int64)) - 1
        assert torch.equal(read.long(), torch.where(expected < 0, 255, expected))
        shown = sample["inputs"].permute(1, 2, 0).numpy()[..., ::-1].astype(int)
        assert np.abs(shown - image).mean() < 6  # JPEG


def test_labels_are_those_of_what_is_drawn():
    """Each thing alone on plain ground: its pixels differ from the ground's exactly where the map says."""
    for thing in scene().things:
        with_thing, labels = regions.render(scene(things=(thing,), grain=0.0))
        without, ground = regions.render(scene(things=(), grain=0.0))
        value = regions.label_value(thing.name)
        covered = labels == value
        assert np.array_equal(labels != ground, covered)
        changed = (with_thing.astype(int) != without).any(-1)
        inside = cv2.erode(covered.astype(np.uint8), np.ones((3, 3)), borderValue=1).astype(bool)
        outside = cv2.dilate(covered.astype(np.uint8), np.ones((5, 5))).astype(bool)
        assert changed[inside].mean() > 0.97
        assert not changed[~outside].any()


def test_grounds_meet_without_gaps():
    shares = regions.ground_shares(scene())
    np.testing.assert_allclose(shares.sum(0), 1, atol=1e-6)
    assert 0 < ((shares > 0) & (shares < 1)).any(0).mean() < 0.3  # borders alone are mixed


def test_every_class_occurs_and_some_pixels_are_unlabelled():
    seen = Counter()
    for index in range(40):
        _, labels = regions.render(regions.scene_of(SMALL, "training", index))
        seen.update(np.unique(labels).tolist())
    assert all(seen[value] >= 8 for value in range(1, len(REGION_CLASSES) + 1))
    assert 4 <= seen[0] <= 28
    # Alternating firsts: already five pictures hold every class.
    first = [np.unique(regions.render(regions.scene_of(SMALL, "training", i))[1]) for i in range(5)]
    assert {1, 2, 3, 4, 5} <= set(np.concatenate(first).tolist())


def test_thin_things_are_as_wide_as_promised():
    rng = np.random.default_rng(0)
    for _ in range(20):
        (pole,) = regions._pole(rng, (128, 128))
        sides = sorted(np.linalg.norm(pole - np.roll(pole, 1, 0), axis=1))
        assert 3.0 <= sides[0] <= 6.0
        assert 0.25 * 128 <= sides[-1] <= 0.5 * 128


def test_scenes_do_not_depend_on_how_many_there_are(folder):
    name = "regions_val_00000002.png"
    read = cv2.imread(str(folder / "annotations" / "validation" / name), cv2.IMREAD_UNCHANGED)
    other = Params(num_train=1, num_val=9, min_size=96, max_size=112)
    assert np.array_equal(read, regions.render(regions.scene_of(other, "validation", 1))[1])
    again = regions.render(regions.scene_of(SMALL, "validation", 1))[1]
    different = Params(num_train=1, num_val=9, min_size=96, max_size=112, seed=1)
    shifted = regions.render(regions.scene_of(different, "validation", 1))[1]
    assert np.array_equal(read, again)
    assert shifted.shape != read.shape or not np.array_equal(shifted, read)
