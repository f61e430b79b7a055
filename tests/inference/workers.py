"""Functions that worker processes run in the tests; a module of its own, so that they import nothing else."""

import os
import signal
import sys
import time
from pathlib import Path

from perception.inference.images.reader import ImageReader


def square(number):
    """Squares a number; 13 kills the process, 7 does so once, in a process that has other work too."""
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def die_once(path):
    """Kills the process unless an earlier attempt has left its mark."""
    if not Path(path).exists():
        Path(path).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def slow_square(number):
    time.sleep(0.2)
    return number * number


def loaded_modules(_):
    return sorted(name for name in ("torch", "mmengine", "mmcv", "mmdet", "cv2") if name in sys.modules)


class DyingReader(ImageReader):
    """The ordinary reader, but files named so kill their process."""

    def read(self, source, alone):
        if "killer" in source.name:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().read(source, alone)
