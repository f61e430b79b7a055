"""HRSC2016 with the sizes that its images have."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from mmdet.registry import DATASETS
from mmrotate.datasets import HRSCDataset

from perception.engine.errors import UserError


@DATASETS.register_module()
class HrscShips(HRSCDataset):
    """mmrotate's data set, which takes the width for the height too.

    The size decides which images are batched together and which are left out as too small.
    """

    def parse_data_info(self, img_info: dict) -> dict:
        """One image's objects from its XML file.

        Raises:
            UserError: the file does not say how large the image is.
        """
        root = ET.parse(img_info["xml_path"]).getroot()
        for key in ("Img_SizeWidth", "Img_SizeHeight"):
            if not root.findtext(key, "").strip().isdecimal():
                raise UserError(f"{img_info['xml_path']} has no whole number as {key}: the image's size is unknown")
        info = super().parse_data_info(img_info)
        info["height"] = int(root.findtext("Img_SizeHeight"))
        return info
