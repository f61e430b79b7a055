"""Writes a config for one's own data that inherits a recipe: data, classes, sizes of heads, batch and learning rate."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmengine.config import Config
from mmrotate.datasets import DOTADataset
from mmseg.datasets import BaseSegDataset

from perception.datasets.checks.config import data_sets
from perception.datasets.class_names import listed
from perception.datasets.folders import names_below
from perception.datasets.images import IMAGE_SUFFIXES, UnreadableImageError, read_header
from perception.datasets.palette import default_palette

from . import checkpoint
from .atomic import replacing
from .class_settings import class_settings
from .config import PACKAGED_RECIPES, find_config, load_config, pretrained_keys
from .errors import UserError
from .own_data import OwnData, Place, coco_data, dota_data, mask_data
from .schedule import scaled_learning_rate, scaled_schedule

WIDTH = 116


@dataclass(frozen=True)
class Wishes:
    """What the user wants of a config.

    Attributes:
        recipe: the config to inherit, a file or the name of a recipe.
        train, val: paths of annotations and images, as :mod:`perception.engine.own_data` reads them.
        out: path of the config to write.
        classes: some of the classes, in the order of labels; None: all.
        zero_is_unlabelled: in masks, 0 is no class.
        load_from: checkpoint to start from; None: the recipe's initial weights.
        batch_size: images of a step and GPU; None: the recipe's.
        gpus: number of GPUs.
        epochs: passes over the data to which the schedule is stretched; None: the recipe's schedule.
    """

    recipe: str
    train: Sequence[str]
    val: Sequence[str]
    out: Path
    classes: Sequence[str] | None = None
    zero_is_unlabelled: bool = False
    load_from: str | None = None
    batch_size: int | None = None
    gpus: int = 1
    epochs: int | None = None


def make_config(wishes: Wishes) -> list[str]:
    """Writes the config and says what is in it, a line each.

    Raises:
        UserError: the recipe is of another kind, or the data cannot be used.
    """
    cfg = load_config(wishes.recipe)
    wishes = replace(wishes, recipe=str(find_config(wishes.recipe)))
    (train, *_) = data_sets(cfg, ("train",)) or [None]
    if train is None:
        raise UserError(f"{wishes.recipe} has no train_dataloader, so it is no recipe")
    given = {"train": wishes.train, "val": wishes.val}
    if issubclass(train.kind, CocoDataset):
        data = coco_data(given, wishes.classes, issubclass(train.kind, CocoPanopticDataset))
        body = _coco_lines(cfg, data)
    elif issubclass(train.kind, DOTADataset):
        data = dota_data(given, wishes.classes)
        body = _dota_lines(cfg, data)
    elif issubclass(train.kind, BaseSegDataset):
        data = mask_data(given, wishes.classes, wishes.zero_is_unlabelled)
        body = _mask_lines(data, wishes.zero_is_unlabelled)
    else:
        raise UserError(
            f"{wishes.recipe} reads data as {train.kind.__name__} does; configs are made for recipes on COCO's format, "
            "on DOTA's (configs/arc.py) and on masks (configs/freqfusion.py); tools/dataset_converters/voc_to_coco.py "
            "turns labels of Pascal VOC into COCO's format"
        )
    notes = [*_said_of(data), *data.notes]
    if issubclass(train.kind, DOTADataset):
        notes += _said_of_size(cfg, data.places["train"])
    start, more = _start_lines(cfg, wishes, data)
    schedule, lines = _schedule_lines(cfg, wishes, data)
    notes += more + schedule
    imports, settings = body
    text = _text(wishes, data, notes, imports, [settings, _head_lines(cfg, data), lines, start])
    with replacing(wishes.out) as file:
        file.write(text.encode())
    return notes


def _text(
    wishes: Wishes, data: OwnData, notes: Sequence[str], imports: Sequence[str], blocks: Sequence[list[str]]
) -> str:
    said = "\n".join(textwrap.fill(note, WIDTH, initial_indent="- ", subsequent_indent="  ") for note in notes)
    palette = default_palette(len(data.classes))
    recipe = os.path.relpath(wishes.recipe, wishes.out.absolute().parent)
    metainfo = ["classes=classes", "palette=palette"]
    if data.things is not None:
        metainfo += [f"thing_classes=classes[:{len(data.things)}]", f"stuff_classes=classes[{len(data.things)}:]"]
    lines = [
        f'"""{recipe} on one\'s own data, as written by tools/make_config.py.',
        "",
        said.replace("\\", "\\\\").replace('"""', "'''"),
        '"""',
        "",
        "from mmengine.config import read_base",
        "",
        "with read_base():",
        f"    from {_module(wishes.recipe, wishes.out)} import *",
        "",
        *imports,
        *([""] if imports else []),
        *_sequence("classes = (", data.classes, ")"),
        *_sequence("palette = [", palette, "]"),
        f"metainfo = dict({', '.join(metainfo)})",
    ]
    for block in blocks:
        if block:
            lines += ["", *block]
    return "\n".join(lines) + "\n"


def _sequence(start: str, values: Sequence, end: str) -> list[str]:
    """A list or tuple on one line if it fits, else on several."""
    words = [_literal(value) for value in values]
    comma = "," if len(words) == 1 else ""
    line = f"{start}{', '.join(words)}{comma}{end}"
    if len(line) <= WIDTH:
        return [line]
    rows, row = [], "   "
    for word in words:
        if len(row) + len(word) + 2 > WIDTH:
            rows.append(row)
            row = "   "
        row += f" {word},"
    return [start, *rows, row, end]


def _literal(value: object) -> str:
    if isinstance(value, str):
        text = repr(value)
        return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
    return repr(value)


def _module(recipe: str, out: Path) -> str:
    """How the new file imports the recipe: by a relative name, or that of a module of the installed package.

    Raises:
        UserError: the way from one to the other is not one of Python's names.
    """
    if PACKAGED_RECIPES in Path(recipe).parents:
        return ".".join(Path(recipe).relative_to(PACKAGED_RECIPES.parents[1]).with_suffix("").parts)
    way = Path(os.path.relpath(Path(recipe).absolute().with_suffix(""), out.absolute().parent))
    ups = sum(part == ".." for part in way.parts)
    names = way.parts[ups:]
    if not all(name.isidentifier() for name in names):
        raise UserError(
            f"{out} cannot inherit {recipe}: a config imports by names of modules, and {'/'.join(names)} is none; "
            "choose a place for --out in the folder of the recipes or beside it"
        )
    return "." * (ups + 1) + ".".join(names)


def _unwrapped(dataset: dict, key: str) -> list[str]:
    """Lines that put one plain data set in the place of a recipe's that joins or repeats some.

    Args:
        dataset: of the recipe.
        key: its name in the config.
    """
    lines = []
    while "dataset" in dataset or "datasets" in dataset:
        if "datasets" in dataset:
            lines.append(f"{key} = {key}.datasets[0]  # the recipe joins several")
            dataset = dataset["datasets"][0]
        else:
            lines.append(f"{key} = {key}.dataset  # an epoch sees each image once")
            dataset = dataset["dataset"]
    return lines


def _repetitions(dataset: dict) -> int:
    """How often an epoch of the recipe sees each image."""
    times = 1
    while "dataset" in dataset:
        times, dataset = times * dataset.get("times", 1), dataset["dataset"]
    return times


def _root(dataset: str, place: Place) -> tuple[list[str], Path | None]:
    """The setting of ``data_root``, and that folder; None where annotations and images are far from each other."""
    folders = [path.absolute() for path in (place.annotations, place.images, place.maps) if path is not None]
    root = Path(os.path.commonpath([folder.parent if folder.is_file() else folder for folder in folders]))
    if len(root.parts) < 3:
        return [f'{dataset}.data_root = ""'], None
    return [f"{dataset}.data_root = {_literal(f'{root}/')}"], root


def _below(path: Path, root: Path | None) -> str:
    name = str(path.absolute()) if root is None else os.path.relpath(path.absolute(), root)
    return _literal("" if name == "." else name + ("/" if path.is_dir() else ""))


def _coco_lines(cfg: Config, data: OwnData) -> tuple[list[str], list[str]]:
    if not cfg.get("val_dataloader"):
        raise UserError(
            f"{cfg.filename} has no validation data (val_dataloader): choose a recipe that evaluates while it trains"
        )
    lines = []
    for split, place in data.places.items():
        dataset = f"{split}_dataloader.dataset"
        lines += _unwrapped(cfg[f"{split}_dataloader"].dataset, dataset)
        settings, root = _root(dataset, place)
        prefix = f"img={_below(place.images, root)}" + (f", seg={_below(place.maps, root)}" if place.maps else "")
        lines += [
            f"{dataset}.metainfo = metainfo",
            *settings,
            f"{dataset}.ann_file = {_below(place.annotations, root)}",
            f"{dataset}.data_prefix = dict({prefix})",
        ]
        if data.subset:
            lines.append(f"{dataset}.subset = True  # other categories of the file are left out")
        if split in data.absent:
            lines.append(f"{dataset}.absent = {list(data.absent[split])!r}  # the file does not have them")
    if isinstance(cfg.val_evaluator, dict) and cfg.val_evaluator.get("ann_file"):
        lines.append("val_evaluator.ann_file = None  # that of the data set")
    return [], [*lines, "test_dataloader = val_dataloader", "test_evaluator = val_evaluator"]


def _dota_lines(cfg: Config, data: OwnData) -> tuple[list[str], list[str]]:
    imports = ["from mmengine.runner import ValLoop", "", "from perception.evaluation.dota import DOTATask1Metric"]
    lines = []
    for split, place in data.places.items():
        loader = "train" if split == "train" else "test"  # recipes for DOTA's server have no validation
        dataset = f"{loader}_dataloader.dataset"
        settings, root = _root(dataset, place)
        lines += [
            f"{dataset}.metainfo = metainfo",
            *settings,
            f"{dataset}.ann_file = {_below(place.annotations, root)}",
            f"{dataset}.data_prefix = dict(img_path={_below(place.images, root)})",
        ]
    pipeline = cfg.test_dataloader.dataset.pipeline
    if not any(_type_name(step) == "LoadAnnotations" for step in pipeline):
        imports[1:1] = ["from mmrotate.datasets.transforms import ConvertBoxType"]
        imports[:0] = ["from mmdet.datasets.transforms import LoadAnnotations"]
        lines += [
            "load_boxes = [",
            '    dict(type=LoadAnnotations, with_bbox=True, box_type="qbox"),',
            '    dict(type=ConvertBoxType, box_type_mapping=dict(gt_bboxes="rbox")),',
            "]",
            "*load_and_resize, pack = test_dataloader.dataset.pipeline",
            "test_dataloader.dataset.pipeline = [*load_and_resize, *load_boxes, pack]",
        ]
    lines += [
        "val_dataloader = test_dataloader",
        "val_evaluator = dict(type=DOTATask1Metric)",
        "test_evaluator = val_evaluator",
        "val_cfg = dict(type=ValLoop)",
    ]
    if not cfg.train_cfg.get("val_interval"):
        lines.append("train_cfg.val_interval = 1")
    upright = [
        (number, step)
        for number, step in enumerate(cfg.train_dataloader.dataset.pipeline)
        if step.get("upright_labels") is not None
    ]
    for number, _ in upright:
        names = ("storage-tank", "roundabout")
        labels = tuple(label for label, name in enumerate(data.classes) if name in names)
        lines.append(
            f"train_dataloader.dataset.pipeline[{number}].upright_labels = {labels!r}  # {' and '.join(names)}, which "
            "are annotated upright"
        )
    return imports, lines


def _mask_lines(data: OwnData, zero_is_unlabelled: bool) -> tuple[list[str], list[str]]:
    imports = ["from perception.datasets.segmentation import SegmentationFolders"]
    place = data.places["train"]
    image_suffix, mask_suffix = _suffixes(place)
    lines = [
        "dataset = dict(",
        "    type=SegmentationFolders,",
        "    metainfo=metainfo,",
        f"    img_suffix={_literal(image_suffix)},",
        f"    seg_map_suffix={_literal(mask_suffix)},",
        f"    reduce_zero_label={zero_is_unlabelled},"
        + ("  # 0 is unlabelled, 1 the first class" if zero_is_unlabelled else "  # 0 is the first class"),
        ")",
    ]
    for split, place in data.places.items():
        (setting,), root = _root(f"{split}_dataloader.dataset", place)
        folders = f"img_path={_below(place.images, root)}, seg_map_path={_below(place.annotations, root)}"
        lines += [
            f"{split}_dataloader.dataset = dict(",
            "    **dataset,",
            f"    data_root={setting.partition(' = ')[2]},",
            f"    data_prefix=dict({folders}),",
            f"    pipeline={split}_dataloader.dataset.pipeline,",
            ")",
        ]
    return imports, [*lines, "test_dataloader = val_dataloader", "test_evaluator = val_evaluator"]


def _suffixes(place: Place) -> tuple[str, str]:
    """What follows the common part of the names of images and of masks."""
    images = [name for name in names_below(place.images) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
    masks = names_below(place.annotations)
    for name in images[:100]:
        stem, suffix = os.path.splitext(name)
        found = [mask for mask in masks if mask.startswith(stem) and not mask[len(stem) :][:1].isalnum()]
        if found:
            return suffix, min(found, key=len)[len(stem) :]
    raise UserError(
        f"no image in {place.images} has a mask in {place.annotations} whose name begins like its own: "
        f"{listed(images[:3])}; {listed(masks[:3])}"
    )


def _head_lines(cfg: Config, data: OwnData) -> list[str]:
    things = None if data.things is None else len(data.things)
    lines = []
    for setting in class_settings(cfg.model):
        wanted = setting.wanted(len(data.classes), things)
        if wanted == setting.value:
            continue
        value = _literal(wanted)
        if setting.kind == "class_weight":
            background = f" + {list(setting.background)!r}" if setting.background else ""
            value = f"[1.0] * {len(data.classes)}{background}"
        lines.append(f"{_attribute('model.' + setting.key)} = {value}")
    return lines


def _attribute(key: str) -> str:
    """A dotted key with numbers as Python reads it: ``a.0.b`` is ``a[0].b``."""
    first, *rest = key.split(".")
    return first + "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in rest)


def _start_lines(cfg: Config, wishes: Wishes, data: OwnData) -> tuple[list[str], list[str]]:
    """Settings of the initial weights, and what to say of them."""
    if wishes.load_from is None:
        return [], []
    loaded = checkpoint.load_checkpoint_file(wishes.load_from)
    trained = (loaded.get("meta") or {}).get("dataset_meta") or {}
    classes = tuple(trained.get("classes") or trained.get("CLASSES") or ())
    note = f"starts from {wishes.load_from}"
    if not classes:
        note += ", which does not name its classes: what depends on their number starts anew where that differs"
    elif classes == data.classes:
        note += ", trained with the same classes"
    else:
        note += f", trained with other classes ({listed(classes)}): what depends on classes starts anew"
    lines = [f"load_from = {_literal(str(Path(wishes.load_from).resolve()))}"]
    lines += [
        f"{_attribute('model.' + key)} = None  # all weights come from load_from" for key in pretrained_keys(cfg.model)
    ]
    return lines, [note]


def _schedule_lines(cfg: Config, wishes: Wishes, data: OwnData) -> tuple[list[str], list[str]]:
    """What to say of batch, learning rate and schedule, and their settings."""
    batch_size = wishes.batch_size or cfg.train_dataloader.batch_size
    total = batch_size * wishes.gpus
    notes, lines = [], []
    if batch_size != cfg.train_dataloader.batch_size:
        lines.append(f"train_dataloader.batch_size = {batch_size}")
    rate = scaled_learning_rate(cfg, total)
    notes.append(f"a step has {wishes.gpus} GPU{'s' * (wishes.gpus > 1)} x {batch_size} = {total} images; {rate.note}")
    lines += rate.lines
    times = _repetitions(cfg.train_dataloader.dataset)
    epochs = wishes.epochs
    if times > 1 and epochs is None and "max_epochs" in cfg.train_cfg:
        epochs = times * cfg.train_cfg.max_epochs
    schedule = scaled_schedule(cfg, data.places["train"].count, total, epochs)
    return [*notes, schedule.note], [*lines, *schedule.lines]


def _said_of(data: OwnData) -> Iterator[str]:
    for split, place in data.places.items():
        objects = f" and {place.objects} objects" if place.objects else ""
        yield f"{split}: {place.count} images{objects}, {place.annotations}"
    yield f"{len(data.classes)} classes: {listed(data.classes)}"


def _said_of_size(cfg: Config, place: Place) -> Iterator[str]:
    """A word on images that the recipe would shrink a lot, although it is meant for patches."""
    scales = [step["scale"] for step in cfg.test_dataloader.dataset.pipeline if step.get("scale")]
    names = [name for name in names_below(place.images) if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES]
    sides = []
    for name in names[:: max(1, -(-len(names) // 50))]:
        try:
            header = read_header(place.images / name)
        except UnreadableImageError:
            continue  # the look at the data names it
        sides.append(max(header.width, header.height))
    if scales and sides and max(sides) > 1.5 * max(scales[0]):
        yield (
            f"images of up to {max(sides)} pixels are shrunk to {max(scales[0])}, and small objects are lost: cut them "
            "into patches with tools/dataset_converters/split_dota.py, and take these"
        )


def _type_name(step: dict) -> str:
    kind = step["type"]
    return kind.rsplit(".", 1)[-1] if isinstance(kind, str) else kind.__name__
