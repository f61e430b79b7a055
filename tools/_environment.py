"""Imported first by every tool: where the packages are not installed, one sentence takes a traceback's place."""

import sys

MISSING = """\
error: {package} is not installed for {python}; \
run `source .venv/bin/activate` first, and `make setup` before that where there is no .venv yet
"""


def report(kind, error, trace):
    """Python's last word on an exception, for the tools: standard library only, and any Python 3."""
    if issubclass(kind, ModuleNotFoundError) and error.name:
        sys.stderr.write(MISSING.format(package=error.name.partition(".")[0], python=sys.executable))
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = report
