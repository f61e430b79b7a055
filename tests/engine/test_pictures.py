"""Pictures of test runs: their names, and that none replaces another."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.structures import InstanceData, PixelData
from mmengine.visualization import Visualizer
from mmseg.structures import SegDataSample
from mmseg.visualization import SegLocalVisualizer
from PIL import Image

from perception.engine.detection_pictures import DetectionPicturesHook
from perception.engine.picture_files import picture_files
from perception.engine.pictures import SegmentationPicturesHook


def names(images):
    return [str(file) for file in picture_files(images, "out").values()]


def test_names_keep_the_tree_from_what_all_images_share_on():
    assert names(["/d/val/a/0.jpg", "/d/val/b/0.jpg"]) == ["out/a/0.jpg", "out/b/0.jpg"]
    assert names(["/d/val/0.jpg", "/d/val/1.jpg"]) == ["out/0.jpg", "out/1.jpg"]
    assert names(["/d/val/0.jpg", "/d/val/b/0.jpg"]) == ["out/0.jpg", "out/b/0.jpg"]
    assert names(["/d/a/x/0.jpg", "/d/a/x/../y/0.jpg"]) == ["out/x/0.jpg", "out/y/0.jpg"]
    assert names(["val/0.png"]) == ["out/0.png"]
    assert names([]) == []


def test_names_that_differ_by_their_suffix_stay_apart():
    images = ["/d/a.jpg", "/d/a.png", "/d/a.JPG", "/d/a.tif", "/d/a.tif.jpg", "/d/a.webp", "/d/a"]
    found = dict(zip(images, names(images)))
    assert found["/d/a.tif.jpg"] == "out/a.tif.jpg"
    assert found["/d/a.tif"] == "out/a.tif.jpg.jpg"
    assert found["/d/a"] == "out/a.jpg.jpg"
    assert [found[f"/d/a{suffix}"] for suffix in (".jpg", ".png", ".JPG", ".webp")] == [
        "out/a.jpg", "out/a.png", "out/a.JPG", "out/a.webp.jpg",
    ]  # fmt: skip
    assert len(set(found.values())) == len(images)


def detections(path):
    sample = DetDataSample(metainfo=dict(img_path=path))
    boxes = torch.tensor([[4.0, 4, 20, 20]])
    sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0]))
    sample.pred_instances = InstanceData(bboxes=boxes, labels=torch.tensor([0]), scores=torch.tensor([0.9]))
    return sample


def label_maps(path):
    sample = SegDataSample(metainfo=dict(img_path=path))
    for key in ("gt_sem_seg", "pred_sem_seg"):
        setattr(sample, key, PixelData(data=torch.zeros(1, 32, 24, dtype=torch.uint8)))
    return sample


@pytest.mark.parametrize(
    ("hook", "visualizer", "sample"),
    [
        (DetectionPicturesHook, DetLocalVisualizer, detections),
        (SegmentationPicturesHook, SegLocalVisualizer, label_maps),
    ],
)
def test_every_image_gets_its_picture_as_the_model_sees_it(tmp_path, hook, visualizer, sample):
    exif = Image.Exif()
    exif[0x0112] = 6
    images = [str(tmp_path / "images" / name) for name in ("a/0.jpg", "b/0.jpg", "b/0.png", "b/1.tif")]
    for image in images:
        Path(image).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), (40, 90, 200)).save(image, exif=exif)
    Image.fromarray(np.full((32, 24), 40_000, np.uint16)).save(images[-1])
    drawing = visualizer.get_instance(f"pictures of {hook.__name__}")
    drawing.dataset_meta = dict(classes=("ship",), palette=[(250, 60, 70)])
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=_Listed(images)), visualizer=drawing)
    Visualizer.get_instance(f"made after {hook.__name__}'s")
    pictures = hook(draw=True, interval=1, test_out_dir=str(tmp_path / "out"))
    pictures.before_test(runner)
    pictures.after_test_iter(runner, 0, {}, [sample(image) for image in images])
    pictures.after_test(runner)
    everything = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.*"))
    made = [name for name in everything if not name.startswith("page/")]
    assert made.pop() == "index.html"
    assert not [name for name in everything if name.endswith(".jsonl")]
    assert made == ["a/0.jpg", "b/0.jpg", "b/0.png", "b/1.tif.jpg"]
    for name in made:
        # Ground truth and prediction side by side, upright.
        assert Image.open(tmp_path / "out" / name).size == (48, 32)
    # 16 bits: neither black nor white.
    corner = np.asarray(Image.open(tmp_path / "out" / "b" / "1.tif.jpg"))[-1, 0]
    assert 100 < corner.mean() < 200


class _Listed:
    """The part of a data set that knows its images."""

    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def get_data_info(self, index):
        return {"img_path": self.images[index]}
