"""Lets every process of an environment find what perception provides for other packages, such as ``mmcv._ext``.

Python runs the ``.pth`` file beside this module at each start (of a notebook, a test, a spawned worker), wherever the
wheel or an editable install put the two. Nothing is imported then: only when one of these packages asks for a module
that no one else has.
"""

import sys

_PACKAGES = ("mmcv", "panopticapi")


class StandInsOfPerception:
    """Imports perception, which brings a finder of its own, when it is needed for the first time."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """What perception has for a name, if anything; nothing where it has been uninstalled or moved away."""
        if name.partition(".")[0] not in _PACKAGES or "perception" in sys.modules:
            return None
        try:
            import perception
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name == "perception":
                return None
            raise ModuleNotFoundError(
                f"No module named {name!r} (perception, which may have a stand-in for it, cannot be imported: "
                f"{type(error).__name__}: {error})",
                name=name,
            ) from error
        # Another package may have this name.
        find_stand_in = getattr(perception, "find_stand_in", None)
        return find_stand_in and find_stand_in(name)


def install():
    """Last, so that an installed module (a compiled ``mmcv._ext``) is found first."""
    sys.meta_path.append(StandInsOfPerception)
