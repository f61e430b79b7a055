"""DOTA in patches, as its splitters write them: ``images/NAME.png`` and ``annfiles/NAME.txt``."""

from __future__ import annotations

from pathlib import Path

from mmdet.registry import DATASETS
from mmrotate.datasets import DOTADataset, DOTAv15Dataset

from perception.engine.errors import UserError

from .dota import class_numbers, read_labels


@DATASETS.register_module()
class DotaPatches(DOTADataset):
    """mmrotate's data set in the order of names, which does not depend on the file system.

    Labels may have DOTA's header lines: whole images are read as well. The classes are those of DOTA-1.0; for other
    data give ``metainfo``.

    Args:
        diff_thr: objects of a higher difficulty are ignored. None: 0 in test mode, where they count neither way as on
            DOTA's server; 100 in training, which uses all objects as the published recipes do.
        test_mode: as in any data set of MMEngine.
        kwargs: as in mmrotate's data set.
    """

    def __init__(self, diff_thr: int | None = None, test_mode: bool = False, **kwargs) -> None:
        if diff_thr is None:
            diff_thr = 0 if test_mode else 100
        super().__init__(diff_thr=diff_thr, test_mode=test_mode, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Names of images, and their objects where ``ann_file`` names a folder.

        Raises:
            UserError: there are no images or labels, or a label file holds something else or a class that is not in
                ``metainfo``.
        """
        if not self.ann_file:
            found = super().load_data_list()
            if not found:
                raise UserError(f"{self.data_prefix['img_path']} holds no .{self.img_suffix} images")
            return sorted(found, key=lambda info: info["img_id"])
        files = sorted(Path(self.ann_file).glob("*.txt"))
        if not files:
            raise UserError(f"{self.ann_file} holds no .txt files with labels")
        return [self._read(file) for file in files]

    def _read(self, file: Path) -> dict:
        try:
            labels = read_labels(file)
            numbers = class_numbers(labels, self.metainfo["classes"], file).tolist()
        except ValueError as error:
            raise UserError(str(error)) from error
        instances = [
            dict(bbox=quad.ravel().tolist(), bbox_label=number, ignore_flag=int(difficulty > self.diff_thr))
            for quad, number, difficulty in zip(labels.corners, numbers, labels.difficulty)
        ]
        image = Path(self.data_prefix["img_path"], f"{file.stem}.{self.img_suffix}")
        return dict(img_id=file.stem, file_name=image.name, img_path=str(image), instances=instances)


@DATASETS.register_module()
class DotaV15Patches(DotaPatches):
    """The same with the classes of DOTA-1.5."""

    METAINFO = DOTAv15Dataset.METAINFO
