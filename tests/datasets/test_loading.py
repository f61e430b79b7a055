"""Loading transforms: keys and pixels as the stock ones give them, and faults that name the file."""

import numpy as np
import pytest
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from perception.datasets.loading import LoadImage, LoadPanopticMapAnnotations, LoadSegMapAnnotations
from perception.datasets.segmentation import ADE20K, SegmentationFolders
from perception.engine.errors import UserError

CLASSES = dict(classes=("water", "meadow", "gravel"))


def picture(path, height=24, width=32, exif=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path, **({"exif": exif} if exif else {}))
    return path


@pytest.mark.parametrize("to_float32", [False, True])
@pytest.mark.parametrize("backend", ["cv2", "pillow"])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_equal_to_the_stock_loader(tmp_path, suffix, backend, to_float32):
    path = str(picture(tmp_path / f"a{suffix}"))
    stock = LoadImageFromFile(to_float32, imdecode_backend=backend)(dict(img_path=path))
    ours = LoadImage(to_float32)(dict(img_path=path))
    assert ours.keys() == stock.keys()
    assert ours["img"].dtype == stock["img"].dtype
    assert np.array_equal(ours["img"], stock["img"])
    assert ours["img_shape"] == ours["ori_shape"] == stock["ori_shape"] == (24, 32)
    assert ours["img"].flags.c_contiguous
    assert ours["img"].flags.writeable


KINDS = {
    "RGB.jpg": {"quality": 90},
    "CMYK.jpg": {"quality": 90},
    "L.jpg": {},
    "P.png": {"transparency": 3},
    "1.png": {},
    "LA.png": {},
    "RGBA.tif": {},
    "CMYK.tif": {},
    "P.gif": {},
    "I;16.png": {},
    "I;16.tif": {},
}


@pytest.mark.parametrize("name", KINDS)
def test_training_and_folder_inference_see_the_same(tmp_path, name):
    from perception.inference.images.decoding import decode
    from perception.inference.scan import Source

    mode, exif = name.partition(".")[0], Image.Exif()
    exif[0x0112] = 8
    image = Image.open(picture(tmp_path / "source.png"))
    if mode == "I;16":
        image = Image.fromarray(np.arange(768, dtype=np.uint16).reshape(24, 32) * 85)
    else:
        image = image.convert(mode)
    path = tmp_path / f"a{name}"
    image.save(path, **KINDS[name], **({} if name.endswith("gif") else {"exif": exif}))
    loaded = LoadImage()(dict(img_path=str(path)))["img"]
    decoded = decode(Source.of_file(path.name, path, path.stat().st_size), None, allow_large=True).pixels
    assert np.array_equal(loaded[..., ::-1], decoded)
    assert loaded.shape == ((24, 32, 3) if name.endswith("gif") else (32, 24, 3))


@pytest.mark.parametrize(("content", "reason"), [(None, "No such file"), (b"", "empty file"), (b"no", "not an image")])
def test_an_image_that_cannot_be_read_is_named(tmp_path, content, reason):
    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(UserError, match=rf"image .*a\.jpg cannot be read: {reason}"):
        LoadImage()(dict(img_path=str(tmp_path / "a.jpg")))


# ---------------------------------------------------------------------------------------------------------- data sets


def folders(root, maps, suffix=".jpg"):
    """A data set of images of 32 x 24 pixels with these maps (name to value)."""
    for name, value in maps.items():
        picture(root / "images" / f"{name}{suffix}")
        path = root / "maps" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        values = np.full((24, 32), value, np.uint8)
        values[:4] = 0
        Image.fromarray(values).save(path)
    return root


def dataset(root, kind=SegmentationFolders, metainfo=CLASSES, pipeline=(LoadImage, LoadSegMapAnnotations), **kwargs):
    prefix = dict(img_path="images", seg_map_path="maps")
    steps = [dict(type=step) for step in pipeline]
    return kind(data_root=str(root), data_prefix=prefix, metainfo=metainfo, pipeline=steps, **kwargs)


def test_images_of_any_suffix_in_a_tree_of_folders(tmp_path):
    folders(tmp_path, {"b/0": 1, "a/0": 2, "1": 1}, ".png")
    folders(tmp_path, {"a/1": 2}, ".JPG")
    found = dataset(tmp_path)
    names = [found.get_data_info(k)["img_path"].removeprefix(f"{tmp_path}/images/") for k in range(4)]
    assert names == ["1.png", "a/0.png", "a/1.JPG", "b/0.png"]
    sample = found[2]
    assert sample["seg_map_path"].endswith("maps/a/1.png")
    assert np.unique(sample["gt_seg_map"]).tolist() == [0, 2]
    assert sample["seg_fields"] == ["gt_seg_map"]


def test_images_and_maps_in_one_folder(tmp_path):
    folders(tmp_path, {"0": 1, "1": 2})
    for path in (tmp_path / "images").iterdir():
        path.rename(tmp_path / "maps" / path.name)
    prefix = dict(img_path="maps", seg_map_path="maps")
    steps = [dict(type=LoadImage), dict(type=LoadSegMapAnnotations)]
    found = SegmentationFolders(data_root=str(tmp_path), data_prefix=prefix, metainfo=CLASSES, pipeline=steps)
    assert [sample["gt_seg_map"].max() for sample in (found[0], found[1])] == [1, 2]
    assert len(found) == 2


def test_ends_of_names_tell_images_and_maps_apart(tmp_path):
    picture(tmp_path / "images" / "bern_0_leftImg8bit.png")
    picture(tmp_path / "images" / "bern_0_other.png")
    (tmp_path / "maps").mkdir()
    Image.new("L", (32, 24), 1).save(tmp_path / "maps" / "bern_0_ids.png")
    found = dataset(tmp_path, img_suffix="_leftImg8bit.png", seg_map_suffix="_ids.png")
    assert len(found) == 1
    assert found[0]["gt_seg_map"].max() == 1


def test_pairs_that_do_not_match(tmp_path, caplog):
    folders(tmp_path, {"0": 1, "1": 1})
    (tmp_path / "maps" / "1.png").rename(tmp_path / "maps" / "2.png")
    with pytest.raises(UserError, match=r"1 of 2 images have no mask NAME\.png in .*maps: 1\.jpg; add"):
        dataset(tmp_path)
    (tmp_path / "images" / "1.jpg").unlink()
    with caplog.at_level("WARNING"):
        assert len(dataset(tmp_path)) == 1
    picture(tmp_path / "images" / "0.png")
    with pytest.raises(UserError, match=r"0\.jpg and 0\.png have the same name but for the suffix"):
        dataset(tmp_path)
    with pytest.raises(UserError, match="holds no images"):
        dataset(tmp_path, img_suffix="_left.png")


def test_maps_are_checked_when_they_are_loaded(tmp_path):
    folders(tmp_path, {"0": 1, "1": 5})
    found = dataset(tmp_path)
    assert found[0]["gt_seg_map"].max() == 1
    with pytest.raises(UserError, match=r"1\.png has values that are no labels: 5; the data set has 0 to 2 .*1\.jpg"):
        found[1]
    Image.new("RGB", (32, 24)).save(tmp_path / "maps" / "0.png")
    with pytest.raises(UserError, match=r"mask .*0\.png cannot be used: it has 3 channels"):
        found[0]
    Image.new("L", (24, 32)).save(tmp_path / "maps" / "0.png")
    with pytest.raises(UserError, match=r"0\.png has 24 x 32 pixels, but its image 32 x 24: it is turned"):
        found[0]
    (tmp_path / "maps" / "0.png").unlink()
    with pytest.raises(UserError, match=r"0\.png cannot be used: No such file"):
        found[0]


def test_maps_are_compared_with_the_upright_image_before_it_is_resized(tmp_path):
    from mmcv.transforms import Resize

    folders(tmp_path, {"0": 1})
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(tmp_path / "images" / "0.jpg", exif=exif)
    pipeline = [dict(type=LoadImage), dict(type=Resize, scale=(8, 8)), dict(type=LoadSegMapAnnotations)]
    prefix = dict(img_path="images", seg_map_path="maps")
    found = SegmentationFolders(data_root=str(tmp_path), data_prefix=prefix, metainfo=CLASSES, pipeline=pipeline)
    with pytest.raises(UserError, match=r"has 32 x 24 pixels, but its image 24 x 32: it is turned"):
        found[0]
    Image.new("L", (24, 32), 1).save(tmp_path / "maps" / "0.png")
    assert found[0]["gt_seg_map"].shape == (32, 24)
    assert found[0]["img"].shape == (8, 8, 3)


def test_masks_of_0_and_255_are_said_at_once(tmp_path):
    folders(tmp_path, {"0": 255, "1": 255})
    with pytest.raises(UserError, match=r"2 masks that were looked at.* hold only 0 and 255: no label but 0"):
        dataset(tmp_path)
    with pytest.raises(UserError, match="no labelled pixel"):
        dataset(tmp_path, reduce_zero_label=True)
    folders(tmp_path, {"1": 2})
    assert len(dataset(tmp_path)) == 2


def test_a_subset_of_a_published_sets_classes(tmp_path):
    folders(tmp_path, {"0": 3, "1": 150})
    found = dataset(tmp_path, ADE20K, metainfo=dict(classes=("sky", "wall")))
    # In the files wall is 1, sky 3; the other 148 classes are ignored.
    assert np.unique(found[0]["gt_seg_map"]).tolist() == [0, 255]
    assert np.unique(found[1]["gt_seg_map"]).tolist() == [255]
    Image.new("L", (32, 24), 151).save(tmp_path / "maps" / "0.png")
    with pytest.raises(UserError, match=r"no labels: 151; the data set has 0 \(unlabelled\), 1 to 150"):
        found[0]


def test_panoptic_maps_are_checked(tmp_path):
    def load():
        results = LoadImage()(dict(img_path=str(tmp_path / "0.jpg")))
        info = [dict(id=7, category=2, is_thing=True)]
        return LoadPanopticMapAnnotations(with_bbox=False)(
            dict(results, seg_map_path=str(path), segments_info=info, instances=[], height=24, width=32)
        )

    picture(tmp_path / "0.jpg")
    path = tmp_path / "0.png"
    with pytest.raises(UserError, match=r"panoptic map .*0\.png cannot be used: No such file"):
        load()
    codes = np.zeros((24, 32, 3), np.uint8)
    codes[5:9, 3:6, 0] = 7
    Image.fromarray(codes).save(path)
    found = load()
    assert found["gt_seg_map"].shape == (24, 32)
    assert (found["gt_seg_map"] == 2).sum() == found["gt_masks"].masks.sum() == 12
    noise = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:1200])
    with pytest.raises(UserError, match=r"panoptic map .*0\.png cannot be used: damaged"):
        load()
    Image.fromarray(codes[:20]).save(path)
    with pytest.raises(UserError, match=r"0\.png has 32 x 20 pixels, but its image 32 x 24; the image is .*0\.jpg"):
        load()


def test_the_size_that_annotations_give_has_to_be_the_files(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (8, 6)).save(path)
    assert LoadImage()({"img_path": str(path), "height": 6, "width": 8})["img_shape"] == (6, 8)
    with pytest.raises(UserError, match=r"a\.png has 8 x 6 pixels, but annotations of an image of 6 x 8"):
        LoadImage()({"img_path": str(path), "height": 8, "width": 6})
