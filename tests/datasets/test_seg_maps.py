"""Maps of classes: which files are refused, with which words, and what their values become."""

import numpy as np
import pytest
from PIL import Image

from perception.datasets.images import UnreadableImageError
from perception.datasets.seg_maps import Labels, check_labelled, check_seg_map, read_seg_map, train_labels


def _save(path, values, **options):
    Image.fromarray(np.asarray(values)).save(path, **options)
    return path


VALUES = np.array([[0, 1, 2], [2, 255, 1]], np.uint8)


def test_values_are_those_of_the_file_whatever_its_kind(tmp_path):
    _save(tmp_path / "grey.png", VALUES)
    _save(tmp_path / "deep.png", VALUES.astype(np.uint16))
    palette = Image.fromarray(VALUES, "P")
    palette.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    palette.save(tmp_path / "palette.png")
    Image.fromarray(VALUES == 1).save(tmp_path / "bit.png")
    for name in ("grey", "deep", "palette"):
        assert np.array_equal(read_seg_map(tmp_path / f"{name}.png"), VALUES)
    assert np.array_equal(read_seg_map(tmp_path / "bit.png"), VALUES == 1)


def test_maps_are_turned_as_images_are(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    _save(tmp_path / "a.png", VALUES, exif=exif)
    assert np.array_equal(read_seg_map(tmp_path / "a.png"), np.rot90(VALUES, -1))


@pytest.mark.parametrize(
    ("mode", "suffix", "words"),
    [
        ("RGB", ".png", r"3 channels \(RGB\)"),
        ("RGBA", ".png", r"4 channels \(RGBA\)"),
        ("LA", ".png", r"2 channels \(LA\)"),
        ("L", ".jpg", "JPEG file, whose compression changes labels"),
        ("F", ".tif", "not 8-bit or 16-bit whole numbers"),
        ("I", ".tif", "not 8-bit or 16-bit whole numbers"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, mode, suffix, words):
    Image.fromarray(VALUES).convert(mode).save(tmp_path / f"a{suffix}")
    with pytest.raises(UnreadableImageError, match=words):
        read_seg_map(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    ("values", "size", "labels", "words"),
    [
        (VALUES, (3, 2), Labels(3), None),
        (VALUES, (3, 2), Labels(2, reduce_zero_label=True), None),
        (VALUES, (3, 2), Labels(2), "values that are no labels: 2; the data set has 0 to 1 (2 classes) and 255"),
        (VALUES, (3, 2), Labels(2), "and 255 (ignored), where 0 is unlabelled set reduce_zero_label"),
        (VALUES, (3, 2), Labels(1, True), "no labels: 2; the data set has 0 (unlabelled), 1 to 1"),
        (VALUES * 40, (3, 2), Labels(3), "no labels: 40, 80, 216;"),
        (np.arange(12, dtype=np.uint8)[None], (12, 1), Labels(3), "no labels: 3, 4, 5, 6, 7, ...;"),
        # In 8 bits it would be label 1.
        (VALUES.astype(np.uint16) + 256, (3, 2), Labels(3), "no labels: 256, 257, 258, 511;"),
        (VALUES, (4, 2), Labels(3), "has 3 x 2 pixels, but its image 4 x 2"),
        (VALUES, (2, 3), Labels(3), "has 3 x 2 pixels, but its image 2 x 3: it is turned"),
    ],
)
def test_faults_are_named(tmp_path, values, size, labels, words):
    path = _save(tmp_path / "a.png", values)
    fault = check_seg_map(path, size, labels)
    if words is None:
        assert fault is None
    else:
        assert fault.startswith(f"mask {path} ")
        assert words in fault


def test_a_missing_file_and_a_damaged_one_are_faults(tmp_path):
    assert "No such file" in check_seg_map(tmp_path / "a.png", (3, 2), Labels(3))
    content = _save(tmp_path / "b.png", np.random.default_rng(0).integers(0, 3, (50, 50), np.uint8)).read_bytes()
    (tmp_path / "b.png").write_bytes(content[: len(content) // 2])
    assert "damaged" in check_seg_map(tmp_path / "b.png", (50, 50), Labels(3))


def test_labels_of_training():
    reduced = train_labels(VALUES, Labels(2, True), None)
    assert np.array_equal(reduced, [[255, 0, 1], [1, 255, 0]])
    assert np.array_equal(train_labels(VALUES, Labels(3), None), VALUES)
    # Of three classes the last and the first are used, in this order.
    chosen = train_labels(VALUES, Labels(3), {0: 1, 1: 255, 2: 0})
    assert np.array_equal(chosen, [[1, 255, 0], [0, 255, 255]])
    wide = np.array([[0, 254, 255]], np.uint8)
    assert np.array_equal(train_labels(wide, Labels(254, True), None), [[255, 253, 255]])
    assert reduced.dtype == np.uint8


@pytest.mark.parametrize("reduce_zero_label", [False, True])
def test_equal_to_mmsegs_loader(tmp_path, reduce_zero_label):
    from mmseg.datasets.transforms import LoadAnnotations

    values = np.random.default_rng(1).choice([*range(12), 255], (30, 40)).astype(np.uint8)
    path = _save(tmp_path / "a.png", values)
    subset = {0: 255, 1: 2, 2: 0, 3: 1, **dict.fromkeys(range(4, 12), 255)}
    for label_map in (None, subset):
        results = dict(seg_map_path=str(path), reduce_zero_label=reduce_zero_label, label_map=label_map, seg_fields=[])
        stock = LoadAnnotations()(results)["gt_seg_map"]
        ours = train_labels(read_seg_map(path), Labels(12, reduce_zero_label), label_map)
        assert np.array_equal(ours, stock)


def test_a_sample_without_labels_is_a_fault(tmp_path):
    binary = [_save(tmp_path / f"{k}.png", np.array([[0, 255]], np.uint8)) for k in range(3)]
    empty = _save(tmp_path / "empty.png", np.zeros((1, 2), np.uint8))
    labelled = _save(tmp_path / "labelled.png", np.array([[0, 1]], np.uint8))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no")
    assert "hold only 0 and 255: no labelled pixel" in check_labelled(binary, Labels(3, True))
    assert "hold only 0 and 255: no label but 0" in check_labelled([broken, *binary], Labels(3))
    assert f"3 masks that were looked at, {binary[0]} first" in check_labelled([broken, *binary], Labels(3))
    assert "hold only 0: no labelled pixel" in check_labelled([empty], Labels(3, True))
    # One file with a label is enough, and images of nothing but the first class may be meant.
    assert check_labelled([*binary, labelled], Labels(3)) is None
    assert check_labelled([empty], Labels(3)) is None
    assert check_labelled([broken], Labels(3)) is None
