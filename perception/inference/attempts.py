"""Running a model that may fail on some of its images."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from perception.engine.errors import UserError
from perception.inference.decoding import Refused
from perception.inference.detector import Detector, Prepared
from perception.inference.results import Found

# A model that fails this often and never succeeded is broken; so is not each of its images.
_HOPELESS = 3


class Attempts:
    """A detector whose failures become reasons.

    Args:
        detector: the model.
        score_thr: detections below it are left out.
    """

    def __init__(self, detector: Detector, score_thr: float) -> None:
        self._detector, self._score_thr = detector, score_thr
        self._succeeded = self._failed = 0

    def predict(self, batch: Sequence[Prepared]) -> list[Found | Refused]:
        """Results of each image; if the model fails on the batch, it gets another chance with each alone.

        Raises:
            UserError: the model fails on every image, or yields what cannot be used.
        """
        try:
            found = self._detector.predict(batch, self._score_thr)
        except (UserError, torch.AcceleratorError):
            raise
        except Exception as error:  # what a model raises is unknowable; the user gets it as the reason
            if len(batch) > 1:
                return [result for image in batch for result in self.predict([image])]
            self._failed += 1
            if not self._succeeded and self._failed >= _HOPELESS:
                raise UserError(f"the model fails on every image: {type(error).__name__}: {error}") from error
            return [Refused(f"the model fails on it: {type(error).__name__}: {error}")]
        self._succeeded += len(found)
        return found
