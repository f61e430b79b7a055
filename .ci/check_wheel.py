"""Asserts that the installed packages hold every tracked file, come from site-packages, and import."""

import importlib
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")
tracked = [Path(line) for line in Path(sys.argv[1]).read_text().split()]
site = Path(next(p for p in sys.path if p.endswith("site-packages")))

missing = [str(path) for path in tracked if not (site / path).is_file()]
if missing:
    sys.exit(f"the wheel lacks {len(missing)} tracked files: {missing[:10]}")

modules = sorted(
    ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    for path in tracked
    if path.suffix == ".py" and path.name != "__main__.py" and path.parts[:2] != ("perception", "configs")
)
for name in modules:
    module = importlib.import_module(name)
    if site not in Path(module.__file__).parents:
        sys.exit(f"{name} was imported from {module.__file__}, not from the wheel")
print(f"wheel: {len(tracked)} files present, {len(modules)} modules import")
