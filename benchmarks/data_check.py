"""The look at a data set of COCO's size before training: the first time, and again while its file has not changed.

The set is made here: files of 640 x 480 pixels (one, under many names) and polygons of 24 points. pycocotools reading
the same file into its index, which every training does as well, is the measure.

    python benchmarks/data_check.py --images 118000
"""

import argparse
import io
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from mmengine.config import Config
from PIL import Image
from pycocotools.coco import COCO

from perception.datasets.coco import CocoObjects
from perception.engine.data_check import examine

MOST_LINKS = 50_000  # file systems allow only so many names of a file
CLASSES = tuple(f"class_{number}" for number in range(80))


def objects(rng: np.random.Generator, image: int) -> Iterator[dict]:
    """Up to 14 objects of an image, seven on average as in COCO."""
    for _ in range(rng.integers(0, 15)):
        x, y, width, height = rng.uniform((0, 0, 5, 5), (500, 350, 130, 120))
        turns = np.sort(rng.uniform(0, 2 * np.pi, 24))
        points = np.stack([x + width / 2 * (1 + np.cos(turns)), y + height / 2 * (1 + np.sin(turns))], 1)
        yield {
            "segmentation": [points.round(2).ravel().tolist()],
            "area": round(0.7 * width * height, 4),
            "iscrowd": 0,
            "image_id": image,
            "bbox": [round(float(value), 2) for value in (x, y, width, height)],
            "category_id": int(rng.integers(len(CLASSES))),
        }


def write(folder: Path, number: int) -> Path:
    """Writes FOLDER/labels.json and FOLDER/images."""
    rng = np.random.default_rng(0)
    names = [f"{image:012d}.jpg" for image in range(number)]
    (folder / "images").mkdir()
    for place, name in enumerate(names):
        source = folder / f"{place // MOST_LINKS}.jpg"
        if not source.exists():
            Image.new("RGB", (640, 480)).save(source)
        os.link(source, folder / "images" / name)
    annotations = [entry for image in range(number) for entry in objects(rng, image)]
    content = {
        "images": [{"id": i, "file_name": name, "width": 640, "height": 480} for i, name in enumerate(names)],
        "annotations": [{**entry, "id": place} for place, entry in enumerate(annotations)],
        "categories": [{"id": label, "name": name} for label, name in enumerate(CLASSES)],
    }
    file = folder / "labels.json"
    file.write_text(json.dumps(content))
    print(f"{number} images, {len(annotations)} objects, {file.stat().st_size / 1e6:.0f} MB")
    return file


def timed(name: str, run: Callable[[], object]) -> None:
    wall, work = time.perf_counter(), time.process_time()
    run()
    wall, work = time.perf_counter() - wall, time.process_time() - work
    print(f"{name:25} {wall:6.2f} s, of which the processor worked {work:6.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_000, help="images (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "cache"))
        file = write(Path(folder), args.images)
        dataset = dict(
            type=CocoObjects,
            ann_file=str(file),
            data_prefix=dict(img=str(Path(folder, "images"))),
            metainfo=dict(classes=CLASSES),
        )
        cfg = Config(dict(model=dict(), train_dataloader=dict(dataset=dataset)))

        def look() -> None:
            examine(cfg, ("train",)).raise_errors()

        def index() -> None:
            with redirect_stdout(io.StringIO()):
                COCO(str(file))

        timed("the look, first time", look)
        timed("the look, again", look)
        timed("pycocotools' index", index)


if __name__ == "__main__":
    main()
