"""The look at data before the first step: panoptic maps, folders of masks, and rotated boxes."""

import re

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from perception.datasets.coco import CocoSegments
from perception.datasets.dota_patches import DotaPatches
from perception.datasets.segmentation import SegmentationFolders
from perception.engine.data_check import examine
from tests.datasets.coco_sets import CLASSES, write, write_maps
from tests.datasets.test_coco import panoptic
from tests.engine.coco_configs import config, errors

pytestmark = pytest.mark.usefixtures("own_cache")


def panoptic_config(tmp_path, change=lambda data: None):
    """Four images whose maps have a cat (code 5) of 50 pixels and a bird (code 6) of 500."""
    file = write(tmp_path, lambda data: (panoptic(data), change(data)))
    write_maps(tmp_path / "maps")
    cfg = config(file, kind=CocoSegments, heads=dict(panoptic_head=dict(num_things_classes=2, num_stuff_classes=1)))
    cfg.train_dataloader.dataset.metainfo.update(thing_classes=("cat", "dog"), stuff_classes=("bird",))
    return cfg


def test_panoptic_maps_are_looked_for(tmp_path):
    cfg = panoptic_config(tmp_path)
    assert errors(cfg) == []
    cfg.model.panoptic_head.num_stuff_classes = 2
    (tmp_path / "maps" / "map_4.png").unlink()
    Image.new("RGB", (30, 40)).save(tmp_path / "maps" / "map_2.png")
    found = errors(cfg)
    assert "1 of 4 label maps are missing in " in found[0]
    assert "map_4.png" in found[0]
    assert "1 of 3 label maps are of another size than the annotations say: map_2.png" in found[1]
    assert "1 of 3 label maps that were looked at lack segments of the annotations: map_2.png" in found[2]
    assert "num_stuff_classes is 2, but the data set has 1" in found[3]
    assert len(found) == 4


def test_panoptic_maps_have_the_segments_of_the_annotations(tmp_path):
    def change(data):
        data["annotations"][0]["segments_info"][0]["area"] = 60
        del data["annotations"][1]["segments_info"][0]

    found = errors(panoptic_config(tmp_path, change))
    assert "have segments that the annotations do not list: map_2.png" in found[0]
    assert "have segments of another area than the annotations state: map_1.png" in found[1]


def masks(folder, values, size=(40, 30)):
    """A data set of four images and masks with these values in bands."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(4):
        bands = np.array(values, np.uint8)[np.arange(30) * len(values) // 30]
        Image.fromarray(bands[:, None].repeat(40, 1)).resize(size, 0).save(folder / "masks" / f"{number}.png")
        Image.new("RGB", (40, 30)).save(folder / "images" / f"{number}.png")
    dataset = dict(
        type=SegmentationFolders, data_root=str(folder), data_prefix=dict(img_path="images", seg_map_path="masks"),
        img_suffix=".png", seg_map_suffix=".png", reduce_zero_label=False, metainfo=dict(classes=CLASSES),
    )  # fmt: skip
    return Config(dict(model=dict(decode_head=dict(num_classes=3)), train_dataloader=dict(dataset=dataset)))


def test_masks_are_looked_into(tmp_path):
    report = examine(masks(tmp_path / "a", (0, 0, 1, 255)), ("train",))
    assert report.errors == []
    assert "classes: cat 65.2%, dog 34.8%, bird 0.0%\n  76.7% of the pixels of 4 masks have a class" in report.text()
    assert [text.split("): ")[1] for text in report.warnings] == ["1 of 3 classes are in no mask: bird"]
    for values, size, message in (
        ((0, 1, 3), (40, 30), "4 of 4 masks .* has values that are no labels: 3"),
        ((0, 1, 2), (30, 30), "has 30 x 30 pixels, but its image 40 x 30"),
        ((0, 255), (40, 30), "hold only 0 and 255: no label but 0"),
    ):
        (found,) = errors(masks(tmp_path / f"b{len(list(tmp_path.iterdir()))}", values, size))
        assert re.search(message, found)


def test_rotated_boxes_lie_in_their_images(tmp_path):
    def objects(scale, number=4):
        for name in ("images", "labels"):
            (tmp_path / name).mkdir(exist_ok=True)
        for image in range(3):
            Image.new("RGB", (64, 64)).save(tmp_path / "images" / f"{image}.png")
            box = " ".join(str(scale * value) for value in (40, 40, 50, 40, 50, 45, 40, 45))
            inside = "1 1 9 1 9 9 1 9 dog 0\n" * number
            (tmp_path / "labels" / f"{image}.txt").write_text(f"{box} cat 0\n{inside}")
        dataset = dict(
            type=DotaPatches, data_root=str(tmp_path), ann_file="labels", data_prefix=dict(img_path="images"),
            metainfo=dict(classes=CLASSES),
        )  # fmt: skip
        return Config(dict(model={}, train_dataloader=dict(dataset=dataset)))

    assert errors(objects(1)) == []
    (found,) = errors(objects(2, number=1))
    assert "3 of 6 objects have their centre outside their image: 0.png, 1.png, 2.png" in found
    (found,) = errors(objects(0.01, number=0))
    assert "3 of 3 objects lie within 0 and 1; they are shares of the image's size" in found
    assert "3 of 15 objects have no width or no height" in " ".join(examine(objects(0), ("train",)).warnings)
    without = objects(1)
    for file in (tmp_path / "labels").iterdir():
        file.write_text("")
    (found,) = errors(without)
    assert "none of the 3 images has an object" in found
    (found,) = examine(objects(2, number=9), ("train",)).warnings
    assert "3 of 30 objects" in found
    cfg = objects(1)
    cfg.train_dataloader.dataset.metainfo.classes = ("cat", "Dog")
    (found,) = errors(cfg)
    assert "has objects of class 'dog' ('Dog'?); classes of the config: cat, Dog" in found
