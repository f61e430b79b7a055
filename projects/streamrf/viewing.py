"""What nerfstudio's viewer shows of a stream: any frame, chosen with a slider."""

from __future__ import annotations

from pathlib import Path

from nerfstudio.utils.rich_utils import CONSOLE
from nerfstudio.viewer.viewer_elements import ViewerSlider

from projects.streamrf.container import StreamReader
from projects.streamrf.delta import StreamError
from projects.streamrf.field import take_state
from projects.streamrf.model import StreamRFModel

REMEMBERED = 4
"""Decoded fields that are kept, so that going back some frames does not decode from the base."""


class FrameSlider(ViewerSlider[int]):
    """Gives a model the decoded field of the frame that is chosen. A frame that cannot be read leaves it as it is.

    The viewer finds this among the pipeline's attributes, and renders anew after each change.

    Args:
        model: that is shown.
        folder: of its stream.

    Raises:
        StreamError: there is no stream, or its base is damaged.
    """

    def __init__(self, model: StreamRFModel, folder: Path):
        self._model, self._reader = model, StreamReader(folder, REMEMBERED)
        last = self._reader.frames - 1
        super().__init__(
            "Frame",
            min(int(model.frame), last),
            0,
            max(last, 1),  # viser takes no slider without a way to go
            1,
            disabled=last == 0,
            cb_hook=lambda element: self.show(int(element.value)),
            hint="Decodes the stream; frames far behind the last key frame take longer",
        )

    def show(self, frame: int) -> None:
        """Take the field of a frame."""
        try:
            state = self._reader.decode(frame)
        except StreamError as error:
            CONSOLE.print(f"frame {frame} is not shown: {error}", style="bold red", markup=False)
            return
        take_state(self._model.grid, state)
        self._model.frame.fill_(frame)
