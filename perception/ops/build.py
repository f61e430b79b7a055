"""Compiles the native operators: ``python -m perception.ops.build`` (what ``make ops`` runs).

The CPU kernels are always built; the CUDA kernels when ``nvcc`` is found and torch was built for CUDA, for the GPUs
present or the architectures of ``TORCH_CUDA_ARCH_LIST`` (as "8.0;9.0+PTX"). Should they fail to compile, the CPU
kernels are linked without them. Nothing but torch, a C++ compiler and, for CUDA, the toolkit is needed.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import functools
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import torch

from perception.ops import backend

DEFAULT_ARCHITECTURES = "8.0;9.0+PTX"  # where no GPU is present to ask; later ones compile the PTX when they load it
_COMMON = ["-O3", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-Wno-sign-compare"]
# Sums keep the order in which they are written, and nothing but an explicit multiply_add is contracted, so that the
# kernels agree with torch on ties and borders.
_HOST = ["-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fopenmp"]
_MARCH = {"AVX512": ["-march=x86-64-v4"], "AVX2": ["-march=x86-64-v3"]}


class BuildError(RuntimeError):
    """A compiler failed; the message holds its output."""


def build(
    folder: Path | None = None, *, cuda: bool | None = None, jobs: int | None = None, verbose: bool = False
) -> Path:
    """Compile and link the library, and put it in place together with its manifest.

    Args:
        folder: where to put it; by default where :mod:`perception.ops` looks for it.
        cuda: whether to compile the CUDA kernels; ``None``: if possible.
        jobs: compilers that run at once; by default one per core.
        verbose: print the commands.

    Raises:
        BuildError: a compiler is missing or fails.
    """
    folder = folder or backend.build_folder()
    with _alone_in(folder):
        return _build(folder, cuda, jobs, verbose)


def _build(folder: Path, cuda: bool | None, jobs: int | None, verbose: bool) -> Path:
    wanted = (cuda_compiler() is not None and torch.version.cuda is not None) if cuda is None else cuda
    host = sorted((backend.SOURCES / "cpu").glob("*.cpp"))
    compiled = compile_all(host, folder / "objects", jobs=jobs, verbose=verbose)
    if wanted:
        try:
            device = sorted((backend.SOURCES / "cuda").glob("*.cu"))
            compiled += compile_all(device, folder / "objects", jobs=jobs, verbose=verbose)
        except BuildError as error:
            if cuda:
                raise
            wanted = False
            print(f"{error}\nThe CUDA kernels did not compile: only CPU kernels are built.", file=sys.stderr)
    library = folder / backend.LIBRARY
    link(compiled, library, cuda=wanted, verbose=verbose)
    description = folder / (backend.MANIFEST + ".part")
    description.write_text(json.dumps(backend.manifest(library, wanted, architectures()), indent=1) + "\n")
    os.replace(description, folder / backend.MANIFEST)
    return library


def build_emulated(folder: Path, *, jobs: int | None = None, verbose: bool = False) -> Path:
    """Compile the CUDA kernels for the host, as ``torch.ops.perception_emulated``: for tests without a GPU."""
    sources = sorted((backend.SOURCES / "cuda").glob("*.cu"))
    library = folder / "perception_emulated.so"
    with _alone_in(folder):
        compiled = compile_all(sources, folder / "objects", jobs=jobs, verbose=verbose, emulate=True)
        link(compiled, library, cuda=False, verbose=verbose)
    return library


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keeps other processes from building in a folder at the same time: they wait, and then find the objects made."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_all(
    sources: list[Path], folder: Path, *, jobs: int | None = None, verbose: bool = False, emulate: bool = False
) -> list[Path]:
    """Object files of C++ and CUDA sources; those whose command and sources have not changed are kept.

    Raises:
        BuildError: a compiler is missing or fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    headers = backend.digest(sorted(backend.SOURCES.rglob("*.h")))

    def one(source: Path) -> Path:
        target = folder / (f"{source.parent.name}_{source.stem}.o")
        command = [*_compiler(source, emulate), "-c", str(source), "-o", str(target) + ".part"]
        note, stamp = (
            target.with_suffix(".json"),
            json.dumps([command, torch.__version__, headers, backend.digest([source])]),
        )
        if not (target.is_file() and note.is_file() and note.read_text() == stamp):
            note.unlink(missing_ok=True)
            _run(command, verbose)
            os.replace(str(target) + ".part", target)
            note.write_text(stamp)
        return target

    with ThreadPoolExecutor(jobs or os.cpu_count() or 1) as pool:
        return list(pool.map(one, sources))


def link(objects: list[Path], library: Path, *, cuda: bool, verbose: bool = False) -> None:
    """Link object files to a shared library, replaced in one step.

    Raises:
        BuildError: the linker fails.
    """
    paths = _torch_build().library_paths("cuda" if cuda else "cpu")
    command = [*_host_compiler(), "-shared", *map(str, objects), "-o", str(library) + ".part"]
    for path in paths:
        command += [f"-L{path}", f"-Wl,-rpath,{path}"]
    # The runtimes that torch itself has loaded: a second OpenMP would compete with it for the cores.
    command += ["-lc10", "-ltorch_cpu", "-ltorch", _loaded("libgomp") or "-lgomp"]
    if cuda:
        command += ["-lc10_cuda", "-ltorch_cuda", _loaded("libcudart") or "-lcudart"]
    _run(command, verbose)
    os.replace(str(library) + ".part", library)


def cuda_compiler() -> str | None:
    """Path of ``nvcc``, or ``None``."""
    home = _torch_build().CUDA_HOME
    candidate = home and Path(home) / "bin" / "nvcc"
    return str(candidate) if candidate and candidate.is_file() else shutil.which("nvcc")


def architectures() -> str:
    """Compute capabilities to compile for, as in ``TORCH_CUDA_ARCH_LIST``."""
    chosen = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if chosen:
        return chosen
    if torch.cuda.is_available():
        present = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        return ";".join(f"{major}.{minor}" for major, minor in sorted(present)) + "+PTX"
    return DEFAULT_ARCHITECTURES


@functools.cache
def _check_toolkit(compiler: str) -> None:
    """Objects of another major version of CUDA than torch's need a runtime that torch does not load."""
    text = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    release = re.search(r"release (\d+)\.", text)
    wanted = (torch.version.cuda or "").split(".")[0]
    if release and wanted and release[1] != wanted:
        raise BuildError(f"{compiler} is of CUDA {release[1]}, but torch was built for CUDA {torch.version.cuda}")


def _torch_build() -> ModuleType:
    logging.getLogger("torch.utils.cpp_extension").setLevel(
        logging.ERROR
    )  # it warns when there is a toolkit but no GPU
    from torch.utils import cpp_extension

    return cpp_extension


def _architecture_flags() -> list[str]:
    flags = []
    for item in backend.split_architectures(architectures()):
        number, _, ptx = item.partition("+")
        digits = number.replace(".", "")
        if not digits.rstrip("af").isdigit() or ptx not in ("", "PTX"):
            raise BuildError(f"TORCH_CUDA_ARCH_LIST names {item!r}; expected numbers as in '8.0;9.0+PTX'")
        flags.append(f"-gencode=arch=compute_{digits},code=sm_{digits}")
        if ptx:
            flags.append(f"-gencode=arch=compute_{digits},code=compute_{digits}")
    return flags


def _host_compiler() -> list[str]:
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    if shutil.which(compiler[0]) is None:
        raise BuildError(f"no C++ compiler: {compiler[0]!r} is not on the PATH; install g++ or set CXX")
    return compiler


def _compiler(source: Path, emulate: bool) -> list[str]:
    """The command that compiles a source, without its input and output."""
    cuda = source.suffix == ".cu" and not emulate
    # From torch 2.12 on its headers need C++20.
    recent = emulate or tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 12)
    standard = "-std=c++20" if recent else "-std=c++17"
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch._C._GLIBCXX_USE_CXX11_ABI)}"
    march = _MARCH.get(torch.backends.cpu.get_cpu_capability(), [])
    includes = [x for path in _torch_build().include_paths("cuda" if cuda else "cpu") for x in ("-isystem", path)]
    if not cuda:
        emulation = ["-DPERCEPTION_EMULATE_CUDA", "-xc++", "-pthread"] if emulate else []
        return [*_host_compiler(), standard, abi, *_COMMON, *_HOST, *march, *emulation, *includes]
    compiler = cuda_compiler()
    if compiler is None:
        raise BuildError("nvcc was not found: install the CUDA toolkit, or set CUDA_HOME")
    _check_toolkit(compiler)
    # As on the host, products and sums are fused only where multiply_add says so.
    options = ["-O3", "--fmad=false", "--expt-relaxed-constexpr", "-Xcompiler", ",".join(["-fPIC", "-fno-math-errno"])]
    host = ["-ccbin", _host_compiler()[-1]] if os.environ.get("CXX") else []
    return [compiler, standard, abi, *host, *options, *_architecture_flags(), *includes]


def _loaded(name: str) -> str | None:
    """Path of a shared library that this process has loaded, if the system can tell."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return None
    return next((path for path in (line.split()[-1] for line in lines) if f"/{name}" in path), None)


def _run(command: list[str], verbose: bool) -> None:
    if verbose:
        print(shlex.join(command), flush=True)
    try:
        result = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"{command[0]}: {error}") from None
    if result.returncode:
        output = result.stdout + result.stderr
        raise BuildError(f"{shlex.join(command)}\nended with status {result.returncode}:\n{output}")
    if verbose and result.stderr:
        print(result.stderr, file=sys.stderr)


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m perception.ops.build",
        description="Compile the native operators of perception for the CPU and, where nvcc is found, for CUDA.",
        epilog="TORCH_CUDA_ARCH_LIST chooses GPU architectures; CXX and CUDA_HOME choose compilers.",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--cuda", action="store_true", help="fail where the CUDA kernels cannot be built")
    choice.add_argument("--no-cuda", action="store_true", help="build the CPU kernels only")
    choice.add_argument(
        "--check-cuda", action="store_true", help="only compile the CUDA kernels, to see that they do; install nothing"
    )
    parser.add_argument("--out", type=Path, help="folder for the library (default: inside the package)")
    parser.add_argument("-j", "--jobs", type=int, help="compilers that run at once (default: one per core)")
    parser.add_argument("-v", "--verbose", action="store_true", help="print the commands and warnings")
    args = parser.parse_args(arguments)
    started = time.monotonic()
    try:
        if args.check_cuda:
            sources = sorted((backend.SOURCES / "cuda").glob("*.cu"))
            folder = (args.out or backend.build_folder()) / "objects"
            compile_all(sources, folder, jobs=args.jobs, verbose=args.verbose)
            print(f"{len(sources)} CUDA sources compile for {architectures()} ({time.monotonic() - started:.0f} s).")
            return
        cuda = True if args.cuda else False if args.no_cuda else None
        library = build(args.out, cuda=cuda, jobs=args.jobs, verbose=args.verbose)
    except BuildError as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(f"cannot write the library: {error}; choose a folder with PERCEPTION_OPS_BUILD=FOLDER")
    contents = "CPU and CUDA" if json.loads((library.parent / backend.MANIFEST).read_text())["cuda"] else "CPU"
    print(f"Built {library} with {contents} kernels ({time.monotonic() - started:.0f} s).")


if __name__ == "__main__":
    main()
