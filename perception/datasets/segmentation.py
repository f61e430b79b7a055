"""Images and maps of classes in two folders, paired by name, looked at before the first step.

The data sets of the recipes are mmseg's, with these differences: images may have any image suffix, an image without map
or without a twin of the same name is an error at once, maps without image are named in the log, a sample of the maps is
looked at, and each record says how many labels there are, by which :class:`~perception.datasets.loading.\
LoadSegMapAnnotations` checks every map when it is loaded.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

from mmengine.logging import print_log
from mmseg.datasets import ADE20KDataset, BaseSegDataset, CityscapesDataset, COCOStuffDataset
from mmseg.registry import DATASETS

from perception.datasets.folders import listed, names_below, unique_stems
from perception.datasets.images import IMAGE_SUFFIXES
from perception.datasets.seg_maps import Labels, check_labelled
from perception.engine.errors import UserError

_SAMPLE = 32


class _Checked(BaseSegDataset):
    """What the data sets below have in common."""

    def load_data_list(self) -> list[dict]:
        """Records of all images, in the order of their paths.

        Raises:
            UserError: there are no images, images lack their maps or share them, or no map that was looked at has
                labels.
        """
        records = super().load_data_list() if self.ann_file else self._pairs()
        labels = self.labels
        if labels is None:
            return records
        for record in records:
            record["num_labels"] = labels.count
        maps = [record["seg_map_path"] for record in records if "seg_map_path" in record]
        fault = check_labelled(maps[:: max(1, len(maps) // _SAMPLE)][:_SAMPLE], labels)
        if fault:
            raise UserError(fault)
        return records

    @property
    def labels(self) -> Labels | None:
        """Which values of the files are labels; None where the classes are not named."""
        # A subset of the classes is taken from files that have them all.
        classes = self.METAINFO.get("classes") or self.metainfo.get("classes")
        return Labels(len(classes), self.reduce_zero_label) if classes else None

    def _pairs(self) -> list[dict]:
        folder, maps = Path(self.data_prefix["img_path"]), self.data_prefix.get("seg_map_path")
        images = self._images(folder)
        if not images:
            raise UserError(f"{folder} holds no images (names that end in {self.img_suffix})")
        records = [
            dict(
                img_path=str(folder / name),
                label_map=self.label_map,
                reduce_zero_label=self.reduce_zero_label,
                seg_fields=[],
            )
            for name in images.values()
        ]
        if maps is not None:
            self._check_maps(images, Path(maps))
            for record, stem in zip(records, images):
                record["seg_map_path"] = str(Path(maps, stem + self.seg_map_suffix))
        return records

    def _images(self, folder: Path) -> dict[str, str]:
        """Relative names of images by what they share with their maps, sorted."""
        names = names_below(folder)
        # Where images and maps share a folder, only their suffixes tell them apart.
        maps = self.data_prefix.get("seg_map_path")
        if self.img_suffix.lower() in IMAGE_SUFFIXES and (maps is None or Path(maps) != folder):
            return unique_stems(folder, [name for name in names if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES])
        return {name.removesuffix(self.img_suffix): name for name in names if name.endswith(self.img_suffix)}

    def _check_maps(self, images: dict[str, str], folder: Path) -> None:
        found = {
            name.removesuffix(self.seg_map_suffix) for name in names_below(folder) if name.endswith(self.seg_map_suffix)
        }
        lacking = [name for stem, name in images.items() if stem not in found]
        if lacking:
            raise UserError(
                f"{len(lacking)} of {len(images)} images have no mask NAME{self.seg_map_suffix} in {folder}: "
                f"{listed(lacking)}; add the masks or remove the images"
            )
        orphans = sorted(found - images.keys())
        if orphans:
            names = listed([stem + self.seg_map_suffix for stem in orphans])
            print_log(
                f"{len(orphans)} masks in {folder} have no image and are not used: {names}", "current", logging.WARNING
            )


@DATASETS.register_module()
class SegmentationFolders(_Checked):
    """One's own data: a folder of images, one of maps, and the names of the classes in ``metainfo``.

    Args:
        img_suffix: an image's suffix such as ``.jpg``, with which all of them are meant; or the end of names.
        **kwargs: as in mmseg's ``BaseSegDataset``.
    """


@DATASETS.register_module()
class ADE20K(_Checked, ADE20KDataset):
    """mmseg's data set, checked."""


@DATASETS.register_module()
class Cityscapes(_Checked, CityscapesDataset):
    """mmseg's data set, checked."""


@DATASETS.register_module()
class COCOStuff164k(_Checked, COCOStuffDataset):
    """mmseg's data set, checked."""
