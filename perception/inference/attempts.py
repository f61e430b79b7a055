"""Running a model that may fail on some of its samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from perception.engine.errors import UserError
from perception.inference.reading import Refused

# A model that fails this often and never succeeded is broken; so is not each of its samples.
_HOPELESS = 3


class Attempts:
    """A model whose failures become reasons.

    Args:
        predict: one result for each prepared sample of a batch.
        unit: what a sample is called.
    """

    def __init__(self, predict: Callable[[Sequence[Any]], Sequence[Any]], unit: str) -> None:
        self._predict, self._unit = predict, unit
        self._succeeded = self._failed = 0

    def predict(self, batch: Sequence[Any]) -> list[Any | Refused]:
        """Results of each sample; if the model fails on the batch, it gets another chance with each alone.

        Raises:
            UserError: the model fails on every sample, or yields what cannot be used.
        """
        try:
            found = self._predict(batch)
        except (UserError, torch.AcceleratorError):
            raise
        except Exception as error:  # what a model raises is unknowable; the user gets it as the reason
            if len(batch) > 1:
                return [result for sample in batch for result in self.predict([sample])]
            self._failed += 1
            if not self._succeeded and self._failed >= _HOPELESS:
                raise UserError(f"the model fails on every {self._unit}: {type(error).__name__}: {error}") from error
            return [Refused(f"the model fails on it: {type(error).__name__}: {error}")]
        self._succeeded += len(found)
        return list(found)
