"""nuScenes' detection benchmark, by its own code, as an MMEngine metric."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger
from mmengine.registry import METRICS

from perception.engine.atomic import output_folder
from perception.engine.errors import UserError

from .nuscenes_results import Detections, result_rows, write_results

ERRORS = {
    "trans_err": "mATE",
    "scale_err": "mASE",
    "orient_err": "mAOE",
    "vel_err": "mAVE",
    "attr_err": "mAAE",
}


@METRICS.register_module()
class NuScenesDetectionMetric(BaseMetric):
    """mAP, NDS and the mean errors of true positives, of the split that the tested data set belongs to.

    Data samples need ``token``, ``ego_from_lidar`` and ``global_from_ego``, and ``pred_instances`` with ``bboxes_3d``
    (N, 9) in the LiDAR's frame, ``scores`` and ``labels``; ``attributes`` (names of nuScenes) where a model finds them.

    Args:
        data_root: the data set's folder, with the tables.
        outfile_prefix: folder for ``results_nusc.json`` in the benchmark's format; None: nothing is kept.
        format_only: only write the file: for the test split, whose annotations are not public.
        collect_device, prefix: as in any metric of MMEngine.

    Raises:
        UserError: there is nowhere to write to.
    """

    default_prefix = "nuscenes"

    def __init__(
        self,
        data_root: str,
        outfile_prefix: str | None = None,
        format_only: bool = False,
        collect_device: str = "cpu",
        prefix: str | None = None,
    ):
        super().__init__(collect_device=collect_device, prefix=prefix)
        if format_only and outfile_prefix is None:
            raise UserError("format_only of the evaluator needs outfile_prefix: the folder to write to")
        self.data_root, self.outfile_prefix, self.format_only = data_root, outfile_prefix, format_only

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the rows of a batch."""
        classes = self.dataset_meta["classes"]
        for sample in data_samples:
            found = sample["pred_instances"]
            detections = Detections(
                boxes=torch.as_tensor(found["bboxes_3d"]).detach(),
                scores=torch.as_tensor(found["scores"]).detach(),
                names=[classes[label] for label in torch.as_tensor(found["labels"]).tolist()],
                ego_from_lidar=torch.as_tensor(sample["ego_from_lidar"]),
                global_from_ego=torch.as_tensor(sample["global_from_ego"]),
                attributes=found.get("attributes"),
            )
            self.results.append((sample["token"], result_rows(sample["token"], detections)))

    def compute_metrics(self, results: list[tuple[str, list[dict]]]) -> dict[str, float]:
        """Write the file and let the devkit score it.

        Raises:
            UserError: the results do not cover the split, or tables are missing.
        """
        if self.outfile_prefix is not None:
            path = output_folder(self.outfile_prefix) / "results_nusc.json"
            write_results(path, dict(results))
            MMLogger.get_current_instance().info(f"wrote {path}")
        if self.format_only:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "results_nusc.json"
            write_results(path, dict(results))
            return evaluate(path, self.data_root, self.dataset_meta["version"], self.dataset_meta["split"])


def evaluate(path: str | Path, data_root: str | Path, version: str, split: str) -> dict[str, float]:
    """Score a file of results with `nuscenes.eval.detection`.

    Args:
        path: the file.
        data_root: the data set's folder.
        version, split: as the devkit names them.

    Returns:
        ``mAP``, ``NDS``, ``mATE`` (m), ``mASE``, ``mAOE`` (rad), ``mAVE`` (m/s), ``mAAE``, and ``AP_CLASS``.

    Raises:
        UserError: the file does not hold exactly the split's samples, or tables are missing.
    """
    # The devkit takes seconds to import.
    from nuscenes.eval.detection.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    from perception.datasets.driving.nuscenes_tables import open_tables

    tables = open_tables(data_root, version)
    with tempfile.TemporaryDirectory() as folder:
        try:
            scorer = DetectionEval(
                tables, config_factory("detection_cvpr_2019"), str(path), split, output_dir=folder, verbose=False
            )
        except AssertionError as error:
            raise UserError(f"{path} cannot be scored on {split} of {data_root}: {error}") from error
        summary = scorer.evaluate()[0].serialize()
    numbers = {"mAP": summary["mean_ap"], "NDS": summary["nd_score"]}
    numbers |= {name: summary["tp_errors"][key] for key, name in ERRORS.items()}
    numbers |= {f"AP_{name}": value for name, value in summary["mean_dist_aps"].items()}
    return {name: float(value) for name, value in numbers.items()}
