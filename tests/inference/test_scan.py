"""Which files of a folder are taken, and in which order."""

import os

import pytest

from perception.datasets.images import IMAGE_SUFFIXES
from perception.inference.scan import scan


def _scan(folder, *rest, **options):
    return scan(folder, IMAGE_SUFFIXES, *rest, **options)


def _touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def _names(found):
    return [source.name for source in found.sources]


def test_images_come_sorted_by_relative_path_and_the_rest_is_named(tmp_path):
    _touch(tmp_path, "b/2.PNG", "b/10.png", "a.jpg", "b.jpeg", "b/c/x.tiff", "notes.txt", "b/labels.json")
    found = _scan(tmp_path)
    assert _names(found) == ["a.jpg", "b.jpeg", "b/10.png", "b/2.PNG", "b/c/x.tiff"]
    assert found.ignored == ["b/labels.json", "notes.txt"]
    assert found.skipped == {}
    assert found.sources[0].path == tmp_path / "a.jpg"
    assert found.sources[0].file_size == 1


def test_hidden_files_and_the_output_folder_are_not_seen(tmp_path):
    _touch(tmp_path, "a.jpg", ".b.jpg", ".cache/c.jpg", "out/images/a.jpg", "other/out/d.jpg")
    found = _scan(tmp_path, exclude=tmp_path / "out")
    assert _names(found) == ["a.jpg", "other/out/d.jpg"]
    assert found.ignored == []


def test_patterns_match_names_and_relative_paths(tmp_path):
    _touch(tmp_path, "cam0/a.png", "cam1/a.png", "cam1/b.dat", "c.png")
    assert _names(_scan(tmp_path, ["cam1/*"])) == ["cam1/a.png", "cam1/b.dat"]
    assert _names(_scan(tmp_path, ["*.dat", "c.*"])) == ["c.png", "cam1/b.dat"]
    assert _scan(tmp_path, ["*.dat"]).ignored == ["c.png", "cam0/a.png", "cam1/a.png"]


def test_a_folder_with_an_image_name_is_a_folder(tmp_path):
    _touch(tmp_path, "holiday.jpg/a.jpg")
    found = _scan(tmp_path)
    assert _names(found) == ["holiday.jpg/a.jpg"]
    assert found.skipped == {}


def test_links_are_followed_but_not_in_circles(tmp_path):
    _touch(tmp_path, "data/a.jpg", "elsewhere/b.jpg")
    (tmp_path / "data/loop").symlink_to(tmp_path / "data")
    (tmp_path / "data/more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/same.jpg").symlink_to(tmp_path / "data/a.jpg")
    assert _names(_scan(tmp_path / "data")) == ["a.jpg", "more/b.jpg", "same.jpg"]


def test_what_is_no_file_is_skipped_by_name(tmp_path):
    _touch(tmp_path, "a.jpg")
    (tmp_path / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    found = _scan(tmp_path)
    assert _names(found) == ["a.jpg"]
    assert found.skipped == {"gone.jpg": "broken symbolic link", "pipe.jpg": "not a regular file"}


def test_a_single_file_is_taken_whatever_its_name(tmp_path):
    _touch(tmp_path, "photo.dat")
    assert _names(_scan(tmp_path / "photo.dat")) == ["photo.dat"]


def test_file_names_that_are_no_text_survive(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"x")
    assert _names(_scan(tmp_path)) == [os.fsdecode(b"caf\xe9.jpg")]


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        _scan(tmp_path / "nowhere")
