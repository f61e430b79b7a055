"""The folder of results: what is reused, what is refused, what is never touched."""

import json
import os
from contextlib import closing
from functools import partial

import numpy as np
import pytest
from PIL import Image

from perception.datasets.images import IMAGE_SUFFIXES
from perception.engine.errors import UserError
from perception.inference.images.dota_files import dota_images, dota_names
from perception.inference.images.image_writer import Labels, picture_names
from perception.inference.images.kind import Images
from perception.inference.images.results import Detections
from perception.inference.images.sample import Georeference, ImageSample
from perception.inference.journal import Journal
from perception.inference.output import OutputFolder
from perception.inference.scan import scan

SETTINGS = {"config": "a.py", "config_sha256": "1", "score_thr": 0.3}
LABELS = Labels(("ship", "plane"), [(255, 0, 0), (0, 0, 255)])


@pytest.fixture
def folder(tmp_path):
    """Three files of 3, 4 and 5 bytes, older than any result."""
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    for size, name in enumerate(("a.jpg", "b.tif", "sub/c.png"), start=3):
        (folder / name).write_bytes(b"x" * size)
        os.utime(folder / name, (1, 1))
    return folder


def _scan(folder):
    return scan(folder, IMAGE_SUFFIXES)


def _open(tmp_path, folder, settings=SETTINGS, pictures=True, overwrite=False):
    writers = partial(Images().writers, pictures=pictures)
    return closing(OutputFolder(tmp_path / "out", settings, _scan(folder), writers, overwrite))


UPRIGHT, ROTATED = [[1, 2, 4, 6]], [[4, 4, 4, 2, 0]]


def _add(output, source, boxes=UPRIGHT, place=None):
    """Writes what was found in an image of 9 x 8 pixels."""
    boxes = np.asarray(boxes, np.float32)
    found = Detections(boxes, np.full(len(boxes), 0.123456789, np.float32), np.ones(len(boxes), np.int64))
    sample = ImageSample(np.zeros((8, 9, 3), np.uint8), 9, 8, 1, 1, georeference=place)
    (writer,) = (writer for writer in output.writers if writer.takes(found))
    head = {"file_name": source.name, "file_size": source.file_size}
    output.add(head | writer.write(output.files, source, sample, found, LABELS))


def _fill(tmp_path, folder, order=(0, 1, 2)):
    sources = _scan(folder).sources
    with _open(tmp_path, folder) as output:
        for index in order:
            _add(output, sources[index], np.resize(UPRIGHT, (index, 4)))
        output.finish(LABELS, {"z.jpg": "empty file", "d.jpg": "damaged"})


def _files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_results_are_coco_and_do_not_depend_on_the_order_of_work(tmp_path, folder):
    _fill(tmp_path, folder, order=(2, 0, 1))
    files = _files(tmp_path / "out")
    assert sorted(files) == [
        "images/a.jpg",
        "images/b.tif.jpg",
        "images/sub/c.png",
        "predictions.json",
        "predictions.jsonl",
        "run.json",
        "skipped.json",
    ]
    coco = json.loads(files["predictions.json"])
    assert coco["images"] == [
        {"id": index + 1, "file_name": name, "width": 9, "height": 8}
        for index, name in enumerate(("a.jpg", "b.tif", "sub/c.png"))
    ]
    assert coco["categories"] == [{"id": 1, "name": "ship"}, {"id": 2, "name": "plane"}]
    assert [(entry["id"], entry["image_id"]) for entry in coco["annotations"]] == [(1, 2), (2, 3), (3, 3)]
    assert json.loads(files["skipped.json"])["skipped"] == [
        {"file_name": "d.jpg", "reason": "damaged"},
        {"file_name": "z.jpg", "reason": "empty file"},
    ]
    os.rename(tmp_path / "out", tmp_path / "first")
    _fill(tmp_path, folder)
    assert _files(tmp_path / "out") == files


def test_finished_images_are_not_done_again(tmp_path, folder):
    _fill(tmp_path, folder, order=(0, 2))
    with _open(tmp_path, folder) as output:
        assert [output.has(source) for source in _scan(folder).sources] == [True, False, True]


@pytest.mark.parametrize("cut", [1, 2, 30, -1])
def test_a_torn_last_line_is_dropped(tmp_path, folder, cut):
    _fill(tmp_path, folder)
    journal = tmp_path / "out/predictions.jsonl"
    whole = journal.read_bytes()
    lines = whole.splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:2]) + lines[2][:cut])
    with _open(tmp_path, folder) as output:
        assert [output.has(source) for source in _scan(folder).sources] == [True, True, False]
        _add(output, _scan(folder).sources[2], UPRIGHT * 2)
    assert journal.read_bytes() == whole


@pytest.mark.parametrize("rubbish", [b"\0\0\0\0\n", b"[1]\n", b"{}\n", b'{"file_name": "nobody.jpg"}\n', b"\xff\xfe\n"])
def test_lines_that_mean_nothing_are_dropped(tmp_path, folder, rubbish):
    _fill(tmp_path, folder)
    journal = tmp_path / "out/predictions.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(rubbish + whole + rubbish)
    os.utime(journal)
    with _open(tmp_path, folder) as output:
        assert all(output.has(source) for source in _scan(folder).sources)
    assert journal.read_bytes() == whole


def test_changed_images_and_lost_pictures_are_done_again(tmp_path, folder):
    _fill(tmp_path, folder)
    (folder / "a.jpg").write_bytes(b"four")
    os.utime(folder / "a.jpg", (1, 1))  # another size, the same date
    (tmp_path / "out/images/sub/c.png").unlink()
    with _open(tmp_path, folder) as output:
        assert [output.has(source) for source in _scan(folder).sources] == [False, True, False]


def test_an_image_that_is_newer_than_its_result_is_done_again(tmp_path, folder):
    _fill(tmp_path, folder)
    later = (tmp_path / "out/predictions.jsonl").stat().st_mtime + 10
    os.utime(folder / "b.tif", (later, later))
    with _open(tmp_path, folder) as output:
        assert [output.has(source) for source in _scan(folder).sources] == [True, False, True]


def test_without_pictures_a_line_is_enough(tmp_path, folder):
    source = _scan(folder).sources[0]
    with _open(tmp_path, folder, pictures=False) as output:
        _add(output, source)
    with _open(tmp_path, folder, pictures=False) as output:
        assert output.has(source)
    with _open(tmp_path, folder, pictures=True) as output:
        assert not output.has(source)


def test_other_settings_are_refused_and_named(tmp_path, folder):
    _fill(tmp_path, folder)
    before = _files(tmp_path / "out")
    with pytest.raises(UserError, match=r"score_thr 0\.3 there, 0\.5 now.*--overwrite"):
        _open(tmp_path, folder, settings=SETTINGS | {"score_thr": 0.5})
    with pytest.raises(UserError, match="other settings \\(another config\\)"):
        _open(tmp_path, folder, settings=SETTINGS | {"config_sha256": "2"})
    assert _files(tmp_path / "out") == before
    with _open(tmp_path, folder, settings=SETTINGS | {"config": "moved/a.py"}) as output:
        assert all(output.has(source) for source in _scan(folder).sources)


def test_results_of_unknown_origin_are_refused(tmp_path, folder):
    _fill(tmp_path, folder)
    (tmp_path / "out/run.json").unlink()
    with pytest.raises(UserError, match=r"no run\.json"):
        _open(tmp_path, folder)


def test_overwrite_starts_afresh_and_spares_what_is_not_its_own(tmp_path, folder):
    _fill(tmp_path, folder)
    (tmp_path / "out/images/holiday.jpg").write_bytes(b"mine")
    (tmp_path / "out/notes.txt").write_bytes(b"mine")
    with _open(tmp_path, folder, settings=SETTINGS | {"score_thr": 0.5}, overwrite=True) as output:
        assert not any(output.has(source) for source in _scan(folder).sources)
    assert sorted(_files(tmp_path / "out")) == ["images/holiday.jpg", "notes.txt", "predictions.jsonl", "run.json"]


def test_two_runs_do_not_share_a_folder(tmp_path, folder):
    with _open(tmp_path, folder), pytest.raises(UserError, match="another run is writing"):
        _open(tmp_path, folder)
    with _open(tmp_path, folder):
        pass


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path, folder, monkeypatch):
    source = _scan(folder).sources[0]

    def fail(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with _open(tmp_path, folder) as output:
        with pytest.raises(OSError, match="disk full"):
            _add(output, source)
        assert not output.has(source)
    assert sorted(_files(tmp_path / "out")) == ["predictions.jsonl", "run.json"]
    assert _files(tmp_path / "out")["predictions.jsonl"] == b""


def test_pictures_have_names_of_their_own():
    assert picture_names(["a.jpg", "a.PNG", "b/a.tif", "c.gif", "c.gif.jpg", "d"]) == {
        "a.jpg": "a.jpg",
        "a.PNG": "a.PNG",
        "b/a.tif": "b/a.tif.jpg",
        "c.gif": "c.gif.1.jpg",
        "c.gif.jpg": "c.gif.jpg",
        "d": "d.jpg",
    }


def test_equal_names_in_different_folders_are_different_images(tmp_path):
    folder = tmp_path / "folder"
    names = ["X.PNG", "X.png", "a/img1/000001.jpg", "b/img1/000001.jpg"]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x" * (number + 3))
    with _open(tmp_path, folder) as output:
        for number, source in enumerate(_scan(folder).sources):
            _add(output, source, np.resize(ROTATED, (number + 1, 5)))
        output.finish(LABELS, {})
    found = json.loads((tmp_path / "out/predictions.json").read_text())
    assert [image["file_name"] for image in found["images"]] == names
    counts = [[entry["image_id"] for entry in found["annotations"]].count(image["id"]) for image in found["images"]]
    assert counts == [1, 2, 3, 4]
    for kind in ("images", "geojson"):
        assert len([path for path in (tmp_path / "out" / kind).rglob("*") if path.is_file()]) == len(names)


def test_a_journal_takes_the_later_of_two_lines(tmp_path):
    (tmp_path / "j").write_bytes(b'{"file_name": "a", "n": 1}\n{"file_name": "b"}\n{"file_name": "a", "n": 2}\n')
    with closing(Journal(tmp_path / "j", lambda record: True)) as journal:
        assert journal.names() == ["b", "a"]
        journal.arrange(["a", "b"])
        journal.append({"file_name": "c"})
        assert list(journal.records(["c", "a"])) == [{"file_name": "c"}, {"file_name": "a", "n": 2}]
    assert (tmp_path / "j").read_bytes() == b'{"file_name": "a", "n": 2}\n{"file_name": "b"}\n{"file_name": "c"}\n'


def test_names_below_dota_are_distinct():
    classes = ["ship", "small car", "small-car", "船", "a/b", "a-b"]
    expected = ["ship", "small car", "small-car", "船", "a-b", "a-b-2"]
    assert dota_names(classes) == [f"Task1_{name}.txt" for name in expected]
    names = ["x/a.png", "b c.png", "b c.tif", "b_c.jpg"]
    assert list(dota_images(names).values()) == ["x/a", "b_c.png", "b_c.tif", "b_c"]
    assert list(dota_images(["a b.png", "a_b.png"]).values()) == ["a_b", "a_b-2"]


PLACE = Georeference("urn:ogc:def:crs:EPSG::32633", (0.5, 0.0, 400000.0, 0.0, -0.5, 5600000.0))


def test_files_about_rotated_boxes_follow_the_images(tmp_path, folder):
    sources = _scan(folder).sources
    nothing = np.zeros((0, 5))
    with _open(tmp_path, folder, pictures=False) as output:
        _add(output, sources[0], ROTATED, PLACE)
        _add(output, sources[1], nothing)
        output.finish(LABELS, {})
    files = _files(tmp_path / "out")
    assert files["dota/Task1_plane.txt"] == b"a 0.12345679 2.00 3.00 6.00 3.00 6.00 5.00 2.00 5.00\n"
    assert files["dota/Task1_ship.txt"] == b""
    assert {"geojson/a.jpg.geojson", "geojson/a.jpg.crs.geojson"} <= set(files)

    # A polygon file that was lost is made again.
    with _open(tmp_path, folder, pictures=False) as output:
        assert output.has(sources[0])
    (tmp_path / "out/geojson/a.jpg.geojson").unlink()
    with _open(tmp_path, folder, pictures=False) as output:
        assert not output.has(sources[0])
        # Now without a coordinate system, and then without any box.
        _add(output, sources[0], ROTATED)
        assert (tmp_path / "out/geojson/a.jpg.geojson").exists()
        assert not (tmp_path / "out/geojson/a.jpg.crs.geojson").exists()
        _add(output, sources[0], nothing)
        output.finish(LABELS, {})
    assert not any(name.startswith("dota") for name in _files(tmp_path / "out"))
    # Starting afresh leaves nothing of it, files without a polygon included.
    with _open(tmp_path, folder, pictures=False, overwrite=True):
        assert sorted(_files(tmp_path / "out")) == ["predictions.jsonl", "run.json"]


def test_overwriting_leaves_files_of_others(tmp_path, folder):
    other = tmp_path / "out/dota/Task1_ship.txt"
    other.parent.mkdir(parents=True)
    other.write_text("P1 0.5 1 2 3 4 5 6 7 8\n")
    with _open(tmp_path, folder, overwrite=True):
        assert other.exists()
