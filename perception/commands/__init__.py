"""The command lines: `perception NAME ...`, and `python tools/NAME.py ...` of a checkout.

A module here is one command: its docstring is what `--help` begins with, `make_parser` knows its options, `run` does
what they say. Little is imported before the arguments are known to be right.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from perception.engine.errors import run_cli

COMMANDS = {
    "train": "train a model from a config",
    "test": "evaluate a checkpoint on the test split of a config",
    "infer": "run a model over a folder: predictions as files, and pictures of them",
    "retrieve": "look for panoramas in a gallery of satellite tiles",
    "make-data": "make the built-in synthetic data sets",
    "make-config": "write a config for your own data",
    "check-data": "look at the data of a config: what is wrong, statistics, samples",
    "convert": "translate a checkpoint between its authors' layout and ours",
    "merge-stages": "merge checkpoints of HBD-Net's stages",
    "print-config": "print a config with everything that it inherits",
    "ops": "which operators are native here, and which are references",
}
# Commands of one system are its own modules; nothing here imports a project.
OF_PROJECTS = {"merge-stages": "projects.hbd_net.merge_command"}
EPILOG = """commands:
{commands}

Each has its own options: perception train --help
A config is a file, or the name of a recipe: perception infer demo/rank_detr CHECKPOINT FOLDER --out OUT
Completion of names and options in bash and zsh: eval "$(register-python-argcomplete perception)"
Radiance fields are trained by nerfstudio's commands: ns-train vqrf --data SCENE
"""


def main() -> NoReturn:
    """The console script `perception`."""
    run_cli(_main)


def run_tool(name: str) -> NoReturn:
    """Runs one command with the arguments of this process; its `--help` calls it as the process was called."""
    run_cli(lambda: _run(name, sys.argv[1:]))


def _main() -> int | None:
    if "_ARGCOMPLETE" in os.environ:
        _complete()
    parser = _parser()
    name = parser.parse_args(sys.argv[1:2]).command
    sys.argv = [f"perception {name}", *sys.argv[2:]]
    return _run(name, sys.argv[1:])


def _run(name: str, arguments: Sequence[str]) -> int | None:
    command = load_command(name)
    return command.run(command.make_parser(arguments).parse_args(arguments))


def load_command(name: str) -> ModuleType:
    """The module of a command."""
    return importlib.import_module(OF_PROJECTS.get(name, f"perception.commands.{name.replace('-', '_')}"))


def _parser() -> argparse.ArgumentParser:
    width = max(map(len, COMMANDS)) + 2
    lines = "\n".join(f"  {name:{width}}{line}" for name, line in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="perception",
        description="Published dense-vision and 3D-perception systems on a current stack.",
        epilog=EPILOG.format(commands=lines),
        usage="perception COMMAND ...",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    return parser


def _complete() -> None:
    """Answers a shell that asks how a line could go on, and ends the process."""
    import argcomplete

    words = os.environ.get("COMP_LINE", "").split()
    if len(words) > 1 and words[1] in COMMANDS and os.environ["COMP_LINE"].split(words[1], 1)[1]:
        os.environ["_ARGCOMPLETE"] = "2"  # the line without its first word
        argcomplete.autocomplete(load_command(words[1]).make_parser(words[2:]))
    argcomplete.autocomplete(_parser())
