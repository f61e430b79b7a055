"""DOTA in patches, as its splitters write them: ``images/NAME.png`` (or another suffix) and ``annfiles/NAME.txt``."""

from __future__ import annotations

import logging
from pathlib import Path

from mmdet.registry import DATASETS
from mmengine.logging import print_log
from mmrotate.datasets import DOTADataset, DOTAv15Dataset

from perception.engine.errors import UserError

from .dota import class_numbers, read_labels
from .folders import listed, unique_stems
from .images import IMAGE_SUFFIXES

# What mmrotate gives an image without labels.
_NOTHING = dict(bbox=[], bbox_label=[], ignore_flag=0)


@DATASETS.register_module()
class DotaPatches(DOTADataset):
    """mmrotate's data set in the order of names, which does not depend on the file system.

    Labels may have DOTA's header lines: whole images are read as well. The classes are those of DOTA-1.0; for other
    data give ``metainfo``.

    Args:
        diff_thr: objects of a higher difficulty are ignored. None: 0 in test mode, where they count neither way as on
            DOTA's server; 100 in training, which uses all objects as the published recipes do.
        test_mode: as in any data set of MMEngine.
        img_suffix: images have this suffix (without dot). None: any that images have.
        kwargs: as in mmrotate's data set.
    """

    def __init__(
        self, diff_thr: int | None = None, test_mode: bool = False, img_suffix: str | None = None, **kwargs
    ) -> None:
        if diff_thr is None:
            diff_thr = 0 if test_mode else 100
        super().__init__(diff_thr=diff_thr, img_suffix=img_suffix, test_mode=test_mode, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Names of images, and their objects where ``ann_file`` names a folder.

        Raises:
            UserError: there are no images or labels, a label file has no image, or holds something else than labels or
                a class that is not in ``metainfo``.
        """
        folder = Path(self.data_prefix["img_path"])
        if not self.ann_file:
            return [self._record(folder / name, stem, [{**_NOTHING}]) for stem, name in self._images(folder).items()]
        files = sorted(Path(self.ann_file).glob("*.txt"))
        if not files:
            raise UserError(f"{self.ann_file} holds no .txt files with labels")
        images = self._images(folder)
        orphans = [file.name for file in files if file.stem not in images]
        if orphans:
            raise UserError(
                f"{len(orphans)} of {len(files)} label files in {self.ann_file} have no image in {folder}: "
                f"{listed(orphans)}; add the images or remove the labels"
            )
        unlabelled = sorted(images.keys() - {file.stem for file in files})
        if unlabelled:
            names = listed([images[stem] for stem in unlabelled])
            print_log(
                f"{len(unlabelled)} images in {folder} have no label file in {self.ann_file} and are not used: {names}",
                "current",
                logging.WARNING,
            )
        return [self._record(folder / images[file.stem], file.stem, self._instances(file)) for file in files]

    def filter_data(self) -> list[dict]:
        """Leaves out images without objects in training, if ``filter_cfg`` says so.

        Raises:
            UserError: none are left.
        """
        kept = super().filter_data()
        if self.data_list and not kept:
            raise UserError(
                f"none of the {len(self.data_list)} label files in {self.ann_file} has an object; there is nothing to "
                "train on"
            )
        return kept

    def _images(self, folder: Path) -> dict[str, str]:
        """Names of the images by stem, sorted."""
        if not folder.is_dir():
            raise UserError(f"{folder} is missing: the folder of images")
        wanted = IMAGE_SUFFIXES if self.img_suffix is None else {f".{self.img_suffix}"}
        names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in wanted)
        if not names:
            kind = "images" if self.img_suffix is None else f".{self.img_suffix} images"
            raise UserError(f"{folder} holds no {kind}")
        return unique_stems(folder, names)

    def _instances(self, file: Path) -> list[dict]:
        try:
            labels = read_labels(file)
            numbers = class_numbers(labels, self.metainfo["classes"], file).tolist()
        except ValueError as error:
            raise UserError(str(error)) from error
        return [
            dict(bbox=quad.ravel().tolist(), bbox_label=number, ignore_flag=int(difficulty > self.diff_thr))
            for quad, number, difficulty in zip(labels.corners, numbers, labels.difficulty)
        ]

    def _record(self, image: Path, name: str, instances: list[dict]) -> dict:
        return dict(img_id=name, file_name=image.name, img_path=str(image), instances=instances)


@DATASETS.register_module()
class DotaV15Patches(DotaPatches):
    """The same with the classes of DOTA-1.5."""

    METAINFO = DOTAv15Dataset.METAINFO
