"""What a predictor is. There are three protocols, one for each loop that a kind of folder can run in."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from perception.inference.scan import Source
from perception.inference.states import KeptState


class Prepared(Protocol):
    """A sample after the test pipeline; those of one `shape` may share a batch."""

    shape: Hashable


class Predictor(Protocol):
    """Samples in, results out, in batches: for `perception.inference.batched`."""

    def prepare(self, source: Source, sample: Any) -> Prepared:
        """Applies the test pipeline, in a thread beside the model's. An exception makes the source be skipped."""

    def predict(self, batch: Sequence[Prepared]) -> Sequence[Any]:
        """One result for each prepared sample; all are of one shape."""


class SequencePredictor(Protocol):
    """Samples of a sequence in, results out, one after the other: for `perception.inference.ordered`."""

    def begin(self, sources: Sequence[Source]) -> None:
        """Forgets everything; what comes next are samples of these sources, in order.

        Sources that cannot be read are left out: compare `source` in `prepare` with the one before to notice.
        """

    def prepare(self, source: Source, sample: Any) -> Any:
        """What does not depend on the state, in a thread beside the model's."""

    def step(self, prepared: Any) -> Any:
        """The result of the next sample."""

    def state(self) -> Any:
        """What the next step depends on, to be kept by `torch.save` and read with `weights_only`; later steps must not
        change it. None when it cannot be kept: an interrupted sequence then starts again.
        """

    def restore(self, sources: Sequence[Source], state: Any) -> None:
        """Instead of `begin`: goes on where `state` was taken."""


class WholePredictor(Protocol):
    """A source at a time, which it reads by itself, piece by piece: for `perception.inference.streamed`."""

    def results(
        self, source: Source, kept: KeptState, note: Callable[[str], None], say: Callable[[str], None]
    ) -> AbstractContextManager[tuple[Any, Any]]:
        """What writers are given, a sample and a result, which may be read on while they are written.

        Args:
            source: what to run.
            kept: holds what an interrupted run has kept of this source, and takes what the next one would need; a
                predictor need not use it.
            note: is told how far it is.
            say: is told what the user has to read.

        Raises:
            SkippedError: it cannot be run; also while the result is read on.
        """


class SkippedError(Exception):
    """A source cannot be run; the message is the reason."""
