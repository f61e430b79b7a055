"""The built-in scenes of bridges: exact boxes of every length, and nothing in them that looks like one but is none."""

from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import pytest
import shapely
from mmrotate.datasets import DOTADataset

from perception.datasets.synthetic import bridges
from perception.datasets.synthetic.bridges import BRIDGE_CLASSES, WATERS, Params

SMALL = Params(num_train=4, num_val=2, min_size=384, max_size=512)
LARGE = Params(min_size=2400, max_size=2600)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("bridges") / "data"
    bridges.write(root, SMALL)
    return root


@pytest.fixture(scope="module")
def large_scenes():
    return [bridges.scene_of(LARGE, "train", index) for index in range(2 * len(WATERS))]


def water_of(scene):
    return shapely.union_all([shapely.Polygon(river.banks).buffer(0) for river in scene.rivers])


def middle_line(strip):
    return shapely.LineString([strip.at(-strip.length / 2, 0), strip.at(strip.length / 2, 0)])


def test_a_bridge_is_what_crosses_water_and_nothing_else_does(large_scenes):
    for scene in large_scenes:
        water = water_of(scene)
        decks = shapely.union_all([shapely.Polygon(strip.corners()) for strip in scene.bridges])
        for strip in scene.bridges:
            corners = strip.corners()
            assert (corners >= 0).all()
            assert (corners <= (scene.width, scene.height)).all()
            # Land below both of its ends, and between them water, but for islets.
            for end in (corners[[0, 3]], corners[[1, 2]]):
                assert not water.intersects(shapely.LineString(end))
            wet = shapely.get_parts(middle_line(strip).intersection(water))
            assert shapely.length(wet).sum() > 0.3 * strip.length
            gaps = [first.distance(second) for first, second in pairwise(wet)]
            assert sum(gaps) < 0.1 * strip.length
        for strip in scene.others:
            ends = [shapely.Point(end) for end in middle_line(strip).coords]
            wet_ends = [water.contains(end) for end in ends]
            assert any(wet_ends) or not water.intersects(middle_line(strip))
            assert not decks.intersects(shapely.Polygon(strip.corners()))
        water = water.intersection(shapely.box(0, 0, scene.width, scene.height))
        for road in scene.roads:
            assert not shapely.LineString(road.points).intersection(water).difference(decks.buffer(1e-6)).length


def test_lengths_reach_from_20_pixels_to_the_whole_picture(large_scenes):
    lengths = np.array([strip.length for scene in large_scenes for strip in scene.bridges])
    counts = np.histogram(lengths, [0, 50, 200, 800, 20000])[0]
    assert (counts >= 5).all()
    assert 20 <= lengths.min() < 30
    shares = [
        strip.length / min(scene.width, scene.height)
        for scene in (bridges.scene_of(LARGE, "val", index) for index in range(0, 16, 4))
        for strip in scene.bridges
    ]
    assert max(shares) > 0.85
    # Longer ones are wider, but not in proportion: the longest are slender.
    slenderness = np.array([strip.length / strip.width for scene in large_scenes for strip in scene.bridges])
    assert slenderness[lengths > 800].min() > 15
    assert slenderness[lengths < 50].max() < 10


def test_a_window_in_the_middle_of_a_long_bridge_does_not_tell_it_from_a_jetty(large_scenes):
    seen = {"bridges": 0, "others": 0}
    for scene in large_scenes:
        water = water_of(scene)
        for kind in seen:
            for strip in getattr(scene, kind):
                x, y = strip.centre
                window = shapely.box(x - 256, y - 256, x + 256, y + 256)
                # Nothing but water and the strip, which reaches out of the window or ends in it.
                if strip.length > 512 and strip.width > 14 and water.contains(window):
                    seen[kind] += 1
                    # Reduced by eight, both ends are in a window, and the strip is still more than a line.
                    reduced = strip.corners() / 8
                    assert (np.ptp(reduced, axis=0) < 512).all()
                    assert strip.width / 8 > 1.5
    assert seen["bridges"] >= 3
    assert seen["others"] >= 3


def test_what_a_bridge_changes_lies_in_its_box():
    for index in range(4):
        scene = bridges.scene_of(replace(SMALL, min_size=400, max_size=600), "val", index)
        image, corners = bridges.render(scene)
        empty, none = bridges.render(replace(scene, bridges=()))
        assert none.shape == (0, 4, 2)
        difference = np.abs(image.astype(int) - empty).max(axis=-1)
        boxes = np.zeros(difference.shape, np.uint8)
        for box in corners:
            inside = np.zeros_like(boxes)
            cv2.fillPoly(inside, [np.round((box - 0.5) * 16).astype(np.int32)], 1, shift=4)
            boxes |= inside
            assert (difference[cv2.erode(inside, np.ones((3, 3), np.uint8)) > 0] > 4).mean() > 0.75
        around = cv2.dilate(boxes, np.ones((27, 27), np.uint8))
        assert not difference[around == 0].any()
        # What is changed outside of the boxes is darker: shadows.
        changed = (cv2.dilate(boxes, np.ones((5, 5), np.uint8)) == 0) & (difference > 2)
        assert (image.astype(int)[changed] <= empty[changed]).all()


def test_boxes_are_clockwise_and_along_the_bridge():
    scene = bridges.scene_of(SMALL, "train", 0)
    for strip in scene.bridges:
        corners = strip.corners()
        along, across = corners[1] - corners[0], corners[2] - corners[1]
        assert np.hypot(*along) == pytest.approx(strip.length)
        assert np.hypot(*across) == pytest.approx(strip.width)
        assert along[0] * across[1] - along[1] * across[0] > 0
        assert strip.length > strip.width


@pytest.mark.slow
def test_files_hold_the_scene_and_the_stock_loader_reads_them(data):
    for split, number in (("train", 4), ("val", 2)):
        dataset = DOTADataset(
            data_root=str(data / split),
            ann_file="annfiles/",
            data_prefix={"img_path": "images/"},
            metainfo=bridges.METAINFO,
            pipeline=[],
        )
        assert dataset.metainfo["classes"] == BRIDGE_CLASSES
        assert len(dataset) == number
        for index in range(number):
            image, corners = bridges.render(bridges.scene_of(SMALL, split, index))
            stored = cv2.imread(str(data / split / "images" / f"{split}_{index:06d}.png"))[..., ::-1]
            np.testing.assert_array_equal(stored, image)
            raw = (data / split / "labelTxt" / f"{split}_{index:06d}.txt").read_text().splitlines()
            assert raw[0].startswith("imagesource:")
            assert [line.split()[8:] for line in raw[2:]] == [["bridge", "0"]] * len(corners)
            entries = {int(entry["img_id"][-6:]): entry for entry in map(dataset.get_data_info, range(number))}
            entry = entries[index]
            boxes = np.array([instance["bbox"] for instance in entry["instances"]]).reshape(-1, 4, 2)
            np.testing.assert_allclose(boxes, corners, atol=0.0001)
            assert all(instance["bbox_label"] == 0 for instance in entry["instances"])


def test_same_seed_same_files_and_an_image_does_not_depend_on_how_many_there_are(data, tmp_path):
    bridges.write(tmp_path / "more", replace(SMALL, num_train=5))
    bridges.write(tmp_path / "other", replace(SMALL, seed=1))
    for path in data.rglob("*_0*.*"):
        name = path.relative_to(data)
        assert path.read_bytes() == (tmp_path / "more" / name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_size": 255}, "min_size must be at least 256 pixels, not 255"),
        ({"max_size": 9000}, "max_size must be at most 8192 pixels, not 9000"),
        ({"min_size": 3000, "max_size": 2000}, "must not be below min_size"),
        ({"min_length": 4.0}, "min_length must be from 16 pixels to a quarter"),
        ({"min_length": 600.0}, r"a quarter of min_size \(500\), not 600"),
        ({"min_length": float("nan")}, "min_length must be"),
        ({"num_val": 0}, "num_val must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        Params(**change)


def test_the_shortest_length_is_honoured():
    scenes = [bridges.scene_of(Params(min_size=800, max_size=900, min_length=120.0), "train", k) for k in range(4)]
    lengths = [strip.length for scene in scenes for strip in scene.bridges]
    assert lengths
    assert min(lengths) >= 120


def test_command_writes_it(run_tool, tmp_path):
    small = ("--num-train", 1, "--num-val", 1, "--min-size", 256, "--max-size", 300)
    done = run_tool("make_demo_data", "bridges", "--out", tmp_path / "bridges", *small)
    assert done.code == 0, done.err
    assert len(list(tmp_path.glob("bridges/*/labelTxt/*.txt"))) == 2
    refused = run_tool("make_demo_data", "bridges", "--out", tmp_path / "other", "--min-size", 100)
    assert refused.code == 1
    assert "min_size must be at least 256 pixels, not 100" in refused.err
