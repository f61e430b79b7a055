"""HRSC2016 with the sizes that its images have."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from mmdet.registry import DATASETS
from mmrotate.datasets import HRSCDataset

from perception.datasets.images import IMAGE_SUFFIXES
from perception.engine.errors import UserError


@DATASETS.register_module()
class HrscShips(HRSCDataset):
    """mmrotate's data set, which takes the width for the height too.

    The size decides which images are batched together and which are left out as too small.
    """

    def parse_data_info(self, img_info: dict) -> dict:
        """One image's objects from its XML file; the image may have another suffix than the published ``.bmp``.

        Raises:
            UserError: the file is missing or not of HRSC's format, or does not say how large the image is.
        """
        path = img_info["xml_path"]
        try:
            root = ET.parse(path).getroot()
        except OSError as error:
            raise UserError(f"labels {path} cannot be read: {error.strerror}") from error
        except ET.ParseError as error:
            raise UserError(f"labels {path} are not XML: {error}") from error
        for key in ("Img_SizeWidth", "Img_SizeHeight"):
            if not root.findtext(key, "").strip().isdecimal():
                raise UserError(f"{path} has no whole number as {key}: the image's size is unknown")
        try:
            info = super().parse_data_info(img_info)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"labels {path} are not of HRSC2016's format: {error}") from error
        info["height"] = int(root.findtext("Img_SizeHeight"))
        info["img_path"] = _existing(info["img_path"])
        return info


def _existing(path: str) -> str:
    if Path(path).exists():
        return path
    others = (str(Path(path).with_suffix(suffix)) for suffix in sorted(IMAGE_SUFFIXES))
    return next((other for other in others if Path(other).exists()), path)
