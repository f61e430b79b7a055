"""Asserts that mmrotate's own metric and its pool find mmcv's operators in processes that do not import perception."""

import functools
import sys

import torch


def main() -> None:
    assert "perception" not in sys.modules
    from mmengine.logging import MMLogger
    from mmrotate.evaluation.metrics import dota_metric

    MMLogger.get_instance("check", log_level="WARNING")
    # One process of its pool tells what all of them would.
    dota_metric.eval_rbbox_map = functools.partial(dota_metric.eval_rbbox_map, nproc=1)
    metric = dota_metric.DOTAMetric(iou_thrs=0.5)
    metric.dataset_meta = {"classes": ("ship",)}
    truth = torch.tensor([[40.0, 40, 30, 12, 0.3], [90.0, 40, 30, 12, -0.8]])
    wrong = torch.tensor([[40.0, 90, 30, 12, 0.3]])
    found = {"bboxes": torch.cat([truth, wrong]), "labels": torch.zeros(3), "scores": torch.tensor([0.8, 0.7, 0.9])}
    sample = {
        "img_id": "0",
        "gt_instances": {"bboxes": truth, "labels": torch.zeros(2)},
        "ignored_instances": {"bboxes": torch.zeros(0, 5), "labels": torch.zeros(0)},
        "pred_instances": found,
    }
    metric.process({}, [sample])
    result = metric.evaluate(size=1)
    # Found at ranks 2 and 3: two thirds of what is reported is right at every recall.
    assert abs(result["dota/mAP"] - 2 / 3) < 1e-6, result
    print("mmrotate's metric and its pool find mmcv's operators")


if __name__ == "__main__":
    main()
