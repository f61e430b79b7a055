"""What mmdet looks up in ``panopticapi``, which no package index has: COCO's code of segments, and panoptic quality.

mmdet matches segments itself; here are the sums and the averages (Kirillov et al., Panoptic Segmentation, CVPR 2019,
section 4). An installed ``panopticapi`` is used instead.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from perception.datasets.panoptic_code import id2rgb, rgb2id  # noqa: F401  (`panopticapi.utils` has them)

VOID = 0
OFFSET = 256**3


@dataclass
class PQStatCat:
    """Sums of one category: IoU of the matched segments, and numbers of matched, wrong and missed ones."""

    iou: float = 0.0
    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __iadd__(self, other: PQStatCat) -> PQStatCat:
        for name in ("iou", "tp", "fp", "fn"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self

    def occurs(self) -> bool:
        """Whether there is any segment, in the truth or in the predictions."""
        return self.tp + self.fp + self.fn > 0

    def qualities(self) -> dict[str, float]:
        """Panoptic, segmentation and recognition quality; zeros where nothing was matched."""
        if not self.tp:
            return {"pq": 0.0, "sq": 0.0, "rq": 0.0}
        segments = self.tp + (self.fp + self.fn) / 2
        return {"pq": self.iou / segments, "sq": self.iou / self.tp, "rq": self.tp / segments}


class PQStat:
    """Sums by category id, which add up over images and processes."""

    def __init__(self) -> None:
        self.pq_per_cat: dict[int, PQStatCat] = defaultdict(PQStatCat)

    def __getitem__(self, category_id: int) -> PQStatCat:
        return self.pq_per_cat[category_id]

    def __iadd__(self, other: PQStat) -> PQStat:
        for category_id, sums in other.pq_per_cat.items():
            self.pq_per_cat[category_id] += sums
        return self

    def pq_average(
        self, categories: Mapping[int, Mapping], isthing: bool | None
    ) -> tuple[dict[str, float], dict[int, dict[str, float]]]:
        """Means over categories that occur.

        Args:
            categories: by id, each with ``isthing``, 0 or 1.
            isthing: things or stuff alone; None for both.

        Returns:
            ``{"pq", "sq", "rq", "n"}`` with the number of categories in the means, and the qualities of each category.
        """
        chosen = [key for key, entry in categories.items() if isthing is None or isthing == (entry["isthing"] == 1)]
        each = {key: self.pq_per_cat[key].qualities() for key in chosen}
        occurring = [
            key for key in chosen if self.pq_per_cat[key].tp + self.pq_per_cat[key].fp + self.pq_per_cat[key].fn
        ]
        number = len(occurring)
        means = {name: sum(each[key][name] for key in occurring) / max(number, 1) for name in ("pq", "sq", "rq")}
        return {**means, "n": number}, each
