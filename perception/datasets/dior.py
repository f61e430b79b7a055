"""DIOR as it is published, brought into the layout and the names of classes that CATNet was published with."""

from __future__ import annotations

import os
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

from perception.datasets.folders import listed
from perception.datasets.synthetic.folder import Recipe, Summary, publish
from perception.engine.errors import UserError

CLASSES = (
    "airplane",
    "airport",
    "baseball field",
    "basketball court",
    "bridge",
    "chimney",
    "dam",
    "expressway service area",
    "expressway toll station",
    "golf field",
    "ground track field",
    "harbor",
    "overpass",
    "ship",
    "stadium",
    "storage tank",
    "tennis court",
    "train station",
    "vehicle",
    "wind mill",
)
"""In the order of the published models' labels."""

RENAMED = {
    "baseballfield": "baseball field",
    "basketballcourt": "basketball court",
    "Expressway-Service-area": "expressway service area",
    "Expressway-toll-station": "expressway toll station",
    "golffield": "golf field",
    "groundtrackfield": "ground track field",
    "storagetank": "storage tank",
    "tenniscourt": "tennis court",
    "trainstation": "train station",
    "windmill": "wind mill",
}
"""Names of the published labels that change."""

SPLITS = ("train", "val", "test")
_LABELS = ("Annotations/Horizontal Bounding Boxes", "Annotations")
_LISTS = ("ImageSets/Main", "Main")
_IMAGES = ("JPEGImages-trainval", "JPEGImages-test", "JPEGImages")


def prepare_dior(
    source: Path,
    out: Path,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_problem: Callable[[str], None] | None = None,
) -> Summary:
    """Writes `out/{Annotations,JPEGImages,ImageSets/Main}`; what is at `source` stays as it is.

    Classes get the names of `CLASSES`, and objects without width or height are left out. Images are linked where the
    file system can, and copied elsewhere. Nothing is visible at `out` before everything is there.

    Args:
        source: the folder of the published archives.
        overwrite: replace a set that was made of another source.
        on_progress: called with the number of finished images and their total.
        on_problem: called with a sentence for each image that is left out, as it or its labels are missing or damaged.

    Raises:
        UserError: parts of the data set are missing, or labels have other classes.
        FileExistsError: `out` holds something else.
        OSError: a file cannot be written.
    """
    labels, lists = _existing(source, _LABELS), _existing(source, _LISTS)
    folders = [source / name for name in _IMAGES if (source / name).is_dir()]
    if not folders:
        raise UserError(f"{source} has none of the folders {listed(_IMAGES)}")
    images = {path.stem: path for folder in folders for path in sorted(folder.iterdir()) if path.suffix == ".jpg"}
    names = {split: _names(lists / f"{split}.txt") for split in SPLITS}
    total = sum(map(len, names.values()))

    def fill(root: Path) -> dict[str, dict[str, int]]:
        for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
            (root / folder).mkdir(parents=True)
        counts = {split: dict(images=0, objects=0, empty_boxes=0, left_out=0) for split in SPLITS}
        done = 0
        for split, wanted in names.items():
            kept = []
            for name in wanted:
                problem = _prepare(name, images.get(name), labels / f"{name}.xml", root, counts[split])
                if problem is None:
                    kept.append(name)
                else:
                    counts[split]["left_out"] += 1
                    if on_problem is not None:
                        on_problem(f"image {name} of {split}.txt is left out: {problem}")
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
            counts[split]["images"] = len(kept)
            (root / "ImageSets" / "Main" / f"{split}.txt").write_text("".join(f"{name}\n" for name in kept))
        return counts

    return publish(Path(out), Recipe("dior", 1, {"source": str(source.resolve())}), fill, overwrite=overwrite)


def _existing(source: Path, names: tuple[str, ...]) -> Path:
    found = next((source / name for name in names if (source / name).is_dir()), None)
    if found is None:
        raise UserError(f"{source} has no folder {' or '.join(names)}: it is not DIOR as published")
    return found


def _names(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except OSError as error:
        raise UserError(f"list of images {path} cannot be read: {error.strerror}") from error


def _prepare(name: str, image: Path | None, labels: Path, root: Path, counts: dict[str, int]) -> str | None:
    """Writes the files of one image, or says what is wrong with them."""
    if image is None:
        return "there is no such image"
    try:
        tree = ET.parse(labels)
    except OSError as error:
        return f"its labels {labels} cannot be read: {error.strerror}"
    except ET.ParseError as error:
        return f"its labels {labels} are not XML: {error}"
    annotation, empty = tree.getroot(), 0
    for entry in annotation.findall("object"):
        label = (entry.findtext("name") or "").strip()
        renamed = RENAMED.get(label, label)
        if renamed not in CLASSES:
            raise UserError(f"{labels} has an object of the class {label!r}, which is none of DIOR's")
        entry.find("name").text = renamed
        try:
            x1, y1, x2, y2 = (float(entry.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            return f"its labels {labels} have an object without four numbers in bndbox"
        if x2 <= x1 or y2 <= y1:
            annotation.remove(entry)
            empty += 1
    counts["objects"] += len(annotation.findall("object"))
    counts["empty_boxes"] += empty
    tree.write(root / "Annotations" / f"{name}.xml", encoding="utf-8")
    target = root / "JPEGImages" / f"{name}.jpg"
    try:
        os.link(image, target)
    except OSError:
        shutil.copyfile(image, target)
    return None
