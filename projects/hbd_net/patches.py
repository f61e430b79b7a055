"""GLH-Bridge in patches, as ``tools/dataset_converters/split_pyramid.py`` writes them, registered with mmdet."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from perception.datasets.dota_patches import DotaPatches
from perception.datasets.folders import listed
from perception.engine.errors import UserError
from perception.evaluation.length_ap import sides
from perception.geometry.pyramid import Context

from .split import context_name, level_folder

_CONTEXT_DIFFICULTY = 1
"""Objects of a higher difficulty do not count in crops, as released."""


@DATASETS.register_module()
class GLHBridge(DotaPatches):
    """Patches of one level, or whole images, with bridges in DOTA's format.

    Args:
        min_side: objects with a shorter side, in pixels, are left out; 2 in the released code.
        **kwargs: of :class:`perception.datasets.dota_patches.DotaPatches`.
    """

    METAINFO: ClassVar[dict] = {"classes": ("bridge",), "palette": [(255, 64, 64)]}

    def __init__(self, *args, min_side: float = 2, **kwargs):
        self.min_side, self._thin = min_side, 0
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> list[dict]:
        """As its base, without the thinnest objects, whose number is said."""
        records = super().load_data_list()
        if self._thin:
            text = f"{self._thin} objects in {self.ann_file} are narrower than {self.min_side} pixels and left out"
            print_log(text, "current", logging.WARNING)
        return records

    def _instances(self, file: Path) -> list[dict]:
        instances = super()._instances(file)
        corners = np.array([instance["bbox"] for instance in instances], np.float64).reshape(-1, 4, 2)
        wide = sides(corners)[:, 1] >= self.min_side
        self._thin += int((~wide).sum())
        return [instance for instance, is_wide in zip(instances, wide) if is_wide]


@DATASETS.register_module()
class GLHBridgeWithContext(GLHBridge):
    """Native patches, and of those with long objects the crops of reduced images around them.

    A record has ``context``: a list of records of crops, each with its ``place``
    (:class:`perception.geometry.pyramid.Context`); ``LoadContext`` loads them.

    Args:
        context_threshold: patches with an object of at least so many pixels have context; 300 in the released code.
        data_prefix: ``img_path`` and ``context``, the folders of patches and of crops.
        **kwargs: of :class:`GLHBridge`.
    """

    def __init__(self, *args, context_threshold: float = 300, data_prefix: dict | None = None, **kwargs):
        self.context_threshold = context_threshold
        super().__init__(*args, data_prefix=dict(data_prefix or {}), **kwargs)

    def load_data_list(self) -> list[dict]:
        """As its base, with context.

        Raises:
            UserError: a patch with a long object has no crops, their files are missing or damaged, or no folder of
                crops is named.
        """
        if "context" not in self.data_prefix:
            raise UserError(
                "data_prefix of the data set lacks context: the folder of crops around patches that split_pyramid.py "
                "writes (native/contexts/); a detector that needs none trains with type GLHBridge"
            )
        records = super().load_data_list()
        folder = Path(self.data_prefix["context"])
        without = []
        for record in records:
            corners = np.array([instance["bbox"] for instance in record["instances"]], np.float64).reshape(-1, 4, 2)
            if sides(corners)[:, 0].max(initial=0) < self.context_threshold:
                record["context"] = []
            elif (folder / f"{record['img_id']}.json").is_file():
                record["context"] = crops_of(record["img_id"], folder, self._crop_instances)
            else:
                without.append(record["img_id"])
        if without:
            raise UserError(
                f"{len(without)} patches with objects of at least {self.context_threshold:g} pixels have no crops in "
                f"{folder}: {listed(without)}; cut the images again with split_pyramid.py "
                f"--context-threshold {self.context_threshold:g} or less"
            )
        return records

    def _crop_instances(self, stem: Path) -> list[dict]:
        file = stem.with_name(f"{stem.name}.txt")
        if not file.is_file():
            raise UserError(f"labels of a crop are missing: {file}")
        before, self.diff_thr = self.diff_thr, _CONTEXT_DIFFICULTY
        try:
            return [instance for instance in self._instances(file) if not instance["ignore_flag"]]
        finally:
            self.diff_thr = before


@DATASETS.register_module()
class GLHBridgePyramid(GLHBridge):
    """Patches of all levels of images, for testing: results of an image are made of those of all its patches.

    A record has the level's ``factor`` and, with ``context``, what ``LoadContext`` loads. Labels are not read: those of
    the whole images are the evaluator's.

    Args:
        factors: of the levels to use; None: all that are there. ``(1,)`` for a detector of native images.
        context: native patches have the crops around them, as a detector wants them that fuses in testing.
        **kwargs: of :class:`GLHBridge`; ``data_prefix`` has the folder that holds the levels as ``img_path``.
    """

    def __init__(self, *args, factors: Sequence[int] | None = None, context: bool = False, **kwargs):
        self.factors, self.context = factors, context
        super().__init__(*args, test_mode=True, **kwargs)

    def load_data_list(self) -> list[dict]:
        """All patches, level by level from the native one on.

        Raises:
            UserError: there are no patches of native images or of a wanted level, or a patch has no crops.
        """
        root = Path(self.data_prefix["img_path"])
        factors = self.factors
        if factors is None:
            factors = [factor for factor in (2**k for k in range(16)) if (root / level_folder(factor)).is_dir()]
            if 1 not in factors:
                raise UserError(f"{root} has no folder {level_folder(1)}: the patches of native images")
        records = []
        for factor in factors:
            folder = root / level_folder(factor) / "images"
            for stem, name in self._images(folder).items():
                record = self._record(folder / name, stem, [])
                crops = self.context and factor == 1
                around = crops_of(stem, root / level_folder(1) / "contexts", lambda _: []) if crops else []
                records.append({**record, "factor": factor, "context": around})
        return records


def crops_of(patch: str, folder: Path, instances_of) -> list[dict]:
    """Records of the crops around a patch.

    Args:
        instances_of: objects of a crop, by its path without suffix.

    Raises:
        UserError: a file is missing, or not what the converter writes.
    """
    path = folder / f"{patch}.json"
    try:
        places = [Context(**{**place, "inside": tuple(place["inside"])}) for place in json.loads(path.read_text())]
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing: where the crops around {patch} lie; cut the images again with split_pyramid.py "
            "--context-threshold 0"
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} does not say where crops lie, as split_pyramid.py writes it ({error})") from error
    records = []
    for place in places:
        stem = folder / context_name(patch, place.factor)
        image = stem.with_name(f"{stem.name}.png")
        if not image.is_file():
            raise UserError(f"a crop around {patch} is missing: {image}")
        records.append(
            dict(
                img_id=stem.name,
                img_path=str(image),
                height=place.height,
                width=place.width,
                factor=place.factor,
                place=place,
                instances=instances_of(stem),
            )
        )
    return records
