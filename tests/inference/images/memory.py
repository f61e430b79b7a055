"""How much memory a run of tools/infer.py takes, in a process of its own."""

import subprocess
import sys

from tests.conftest import REPOSITORY

_COMMAND = (
    "import re, runpy, sys; sys.path.append('tools'); sys.argv = ['tools/infer.py', *sys.argv[1:]]\n"
    "try: runpy.run_path('tools/infer.py', run_name='__main__')\n"
    "except SystemExit as end:\n"
    "    print('peak', re.search(r'VmHWM:\\s*(\\d+)', open('/proc/self/status').read())[1], end.code)"
)


def peak_of_infer(*arguments: object) -> int:
    """Bytes that the process held at most."""
    command = [sys.executable, "-c", _COMMAND, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    _, peak, code = done.stdout.splitlines()[-1].split()
    assert code == "0"
    return int(peak) * 1024
