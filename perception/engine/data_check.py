"""A look at the data of a config before anything slow starts: what is wrong, how often, where, and what to do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric, CocoPanopticMetric
from mmdet.registry import METRICS
from mmengine.config import Config

from perception.datasets.checks.built import look_at_built
from perception.datasets.checks.coco import look_at_coco
from perception.datasets.checks.coco_facts import CocoFacts, coco_facts
from perception.datasets.checks.config import DataSet, data_sets, require_files
from perception.datasets.checks.examined import Examined
from perception.datasets.checks.files import SAMPLE
from perception.datasets.checks.report import Findings, Report, Section, some
from perception.datasets.checks.sheet import draw_sheet
from perception.datasets.class_names import listed
from perception.evaluation.coco import CocoObjectsMetric, CocoSegmentsMetric

from .class_settings import class_settings
from .errors import UserError
from .torchrun import rank

SPLITS = ("train", "val", "test")


def check_data(cfg: Config, splits: tuple[str, ...]) -> None:
    """Looks at the data of ``splits`` (of train, val, test); warnings go to standard error.

    In a job of several processes, the first one looks.

    Raises:
        UserError: the data cannot be used, and why.
    """
    if rank() == 0:
        report = examine(cfg, splits)
        for warning in report.warnings:
            print(f"warning: {warning}", file=sys.stderr, flush=True)
        report.raise_errors()


def check_labels(cfg: Config, checkpoint: Mapping, source: str) -> None:
    """Compares the classes that a checkpoint was trained with to those of the test data, which labels refer to.

    Args:
        cfg: with ``test_dataloader``.
        checkpoint: with ``meta``, as MMEngine writes it.
        source: the checkpoint's name, for messages.

    Raises:
        UserError: they are the same in another order.
    """
    trained = (checkpoint.get("meta") or {}).get("dataset_meta") or {}
    trained = tuple(trained.get("classes") or trained.get("CLASSES") or ())
    for dataset in data_sets(cfg, ("test",)) if trained else ():
        classes = dataset.classes
        if set(trained) == set(classes) and trained != classes:
            raise UserError(
                f"checkpoint {source} was trained with the classes in another order: {listed(trained)}; the test data "
                f"set has {listed(classes)}: set its metainfo.classes to the order of the checkpoint"
            )
        if len(trained) == len(classes) and trained != classes and rank() == 0:
            print(
                f"warning: checkpoint {source} was trained with other classes than those of the test data set: "
                f"{listed(trained)}; {listed(classes)}",
                file=sys.stderr,
                flush=True,
            )


def examine(cfg: Config, splits: tuple[str, ...] = SPLITS, limit: int = SAMPLE) -> Report:
    """All that is wrong with the data of a config and with what the config says of them.

    Args:
        cfg: of a recipe.
        splits: of train, val and test, those that the config has.
        limit: so many images of each data set are looked into; names and annotations are looked at all.

    Raises:
        UserError: a data set is not there at all.
    """
    found = data_sets(cfg, splits)
    for dataset in found:
        require_files(dataset)
    report, seen, images = Report(), {}, {}
    for dataset in found:
        same = [split for split, other in seen.items() if other.cfg == dataset.cfg and other.kind is dataset.kind]
        if same:
            report.sections.append(Section(f"{dataset.split} (the same as {same[0]})"))
        else:
            seen[dataset.split] = dataset
            section, paths = _look(dataset, limit)
            report.sections.append(section)
            images.setdefault(dataset.split, []).extend(paths)
        if issubclass(dataset.kind, CocoDataset):
            _look_at_evaluator(cfg, dataset, report.sections[-1].findings)
    together = Section("config")
    _look_at_classes(cfg, found, together.findings)
    for split in ("val", "test"):
        files = [
            dataset.ann_file for dataset in found if dataset.split == split and issubclass(dataset.kind, CocoDataset)
        ]
        if len(files) > 1:
            together.findings.error(
                f"{split} joins {len(files)} annotation files ({some(files)}), whose ids would be mixed up",
                "merge them into one, or evaluate with one after the other",
            )
    _look_at_splits(images, together.findings)
    if together.findings.errors or together.findings.warnings:
        report.sections.append(together)
    return report


def draw_sheets(cfg: Config, splits: tuple[str, ...], folder: Path) -> Iterator[Path]:
    """Draws a contact sheet of each data set of ``splits`` as ``FOLDER/SPLIT.jpg``; of equal ones, the first."""
    drawn: list[dict] = []
    names: list[str] = []
    for dataset in data_sets(cfg, splits):
        if dataset.cfg in drawn:
            continue
        drawn.append(dataset.cfg)
        names.append(dataset.split)
        number = names.count(dataset.split)
        path = folder / (f"{dataset.split}.jpg" if number == 1 else f"{dataset.split}_{number}.jpg")
        examined = issubclass(dataset.kind, Examined)
        if dataset.kind.draw(dataset.cfg, path) if examined else draw_sheet(dataset, path):
            yield path


def _look(dataset: DataSet, limit: int) -> tuple[Section, list[str]]:
    if issubclass(dataset.kind, Examined):
        section = Section(dataset.split)
        try:
            dataset.kind.examine(dataset.cfg, section, limit)
        except UserError as error:
            section.findings.error(str(error))
        return section, []
    if not issubclass(dataset.kind, CocoDataset):
        return look_at_built(dataset, limit)
    section, facts = look_at_coco(dataset, limit)
    folder = dataset.folder("img")
    return section, [os.path.normpath(os.path.join(folder, name)) for name in facts.names] if facts else []


def _look_at_classes(cfg: Config, found: list[DataSet], findings: Findings) -> None:
    """Classes of data sets against those of the others, and against the heads of the model."""
    first = next((dataset for dataset in found if dataset.classes), None)
    if first is None:
        return
    for dataset in found:
        if dataset.classes and dataset.classes != first.classes:
            findings.error(
                f"the data sets {first.split} and {dataset.split} have different classes (metainfo.classes): "
                f"{listed(first.classes)}; {listed(dataset.classes)}",
                "labels are places in this list: it has to be the same",
            )
            return
    things = (first.cfg.get("metainfo") or {}).get("thing_classes") or getattr(first.kind, "METAINFO", {}).get(
        "thing_classes"
    )
    number, of_things = len(first.classes), None if things is None else len(things)
    for setting in class_settings(cfg.get("model") or {}):
        wanted = setting.wanted(number, of_things)
        if setting.kind == "class_weight":
            if len(setting.value) != len(wanted):
                findings.error(
                    f"model.{setting.key} has {len(setting.value)} weights, but the data set has {number} classes",
                    f"{len(wanted)} weights are needed",
                )
        elif setting.value != wanted:
            findings.error(
                f"model.{setting.key} is {setting.value}, but the data set has {wanted}: {listed(first.classes)}",
                f"set it with --cfg-options model.{setting.key}={wanted}, or let tools/make_config.py write a config",
            )


def _look_at_splits(images: dict[str, list[str]], findings: Findings) -> None:
    """Images that are trained on and evaluated with."""
    train = set(images.get("train", ()))
    for split in ("val", "test"):
        paths = images.get(split, ())
        shared = [path for path in paths if path in train]
        if shared:
            findings.warn(
                f"{len(shared)} of {len(paths)} {split} images are trained on as well: {some(shared)}",
                "figures of them say nothing about images that a model has not seen",
            )
        elif train and len(paths) > 2 * len(train):
            findings.warn(f"train has {len(train)} images and {split} {len(paths)}", "were the two exchanged?")


def _look_at_evaluator(cfg: Config, dataset: DataSet, findings: Findings) -> None:
    """Annotations that an evaluator names itself, which must be those of the data that it evaluates."""
    given = cfg.get(f"{dataset.split}_evaluator")
    for entry in given if isinstance(given, (list, tuple)) else [given]:
        file = entry.get("ann_file") if isinstance(entry, dict) else None
        if not file:
            continue
        try:
            facts = coco_facts(file)
        except UserError as error:
            findings.error(f"evaluator: {error}", "leave out ann_file, and it takes that of the data set")
            continue
        if os.path.realpath(file) != os.path.realpath(dataset.ann_file):
            own = coco_facts(dataset.ann_file)
            known = dict(zip(facts.ids, facts.names))
            strange = [
                name for number, name in zip(own.ids, own.names)
                if os.path.basename(known.get(number, "")) != os.path.basename(name)
            ]  # fmt: skip
            if strange:
                findings.error(
                    f"the evaluator's annotations ({file}) are of other images than the data set's "
                    f"({dataset.ann_file}): {len(strange)} of {len(own.names)} are not in it under their id, such as "
                    f"{some(strange)}",
                    f"leave out {dataset.split}_evaluator.ann_file, and it takes that of the data set",
                )
        _look_at_order(entry, facts, dataset, findings)


def _look_at_order(evaluator: dict, facts: CocoFacts, dataset: DataSet, findings: Findings) -> None:
    kind = evaluator["type"]
    if isinstance(kind, str):
        with METRICS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    stock = kind and issubclass(kind, (CocoMetric, CocoPanopticMetric))
    if not stock or issubclass(kind, (CocoObjectsMetric, CocoSegmentsMetric)):
        return
    order = [name for name in facts.class_names if name in dataset.classes]
    if order != list(dataset.classes):
        findings.error(
            f"the evaluator, {kind.__name__}, takes labels from the order of the file ({listed(order)}), which is not "
            f"that of the classes ({listed(dataset.classes)})",
            "use perception.evaluation.coco.CocoObjectsMetric, which goes by name",
        )
