"""Ray's cluster: joined or started, and looked at before work begins.

Ray is imported when it is asked for; nodes import this module to have a look, so it imports nothing heavy.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from perception.engine.errors import UserError

# What actors tell each other is small: paths come, lines of the journal go.
_STORE = 128 * 2**20
_SHARED_MEMORY = Path("/dev/shm")
# Ray keeps sockets below its folder, whose paths must not exceed 107 bytes.
_LONGEST_FOLDER = 30
_CONNECT, _PROBE = 5.0, 60.0


@dataclass(frozen=True)
class Needs:
    """What one actor takes of its node."""

    cpus: float
    gpus: float

    def __str__(self) -> str:
        return f"{self.cpus:g} CPUs" + (f" and {self.gpus:g} GPUs" if self.gpus else "")

    def fits(self, node: dict[str, Any]) -> int:
        """How many actors a node has room for, when nothing else runs there."""
        there = node["Resources"]
        rooms = [
            int(there.get(name, 0) / amount + 1e-6)
            for name, amount in (("CPU", self.cpus), ("GPU", self.gpus))
            if amount
        ]
        return min(rooms)


@contextmanager
def joined(address: str | None) -> Iterator[ModuleType]:
    """Ray, connected to a cluster; one that was started here ends with the context, others go on.

    Args:
        address: HOST:PORT, or auto for the cluster that this machine belongs to; None starts one of this machine alone.

    Raises:
        UserError: Ray is not installed, there is no such cluster, or none can be started.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray would put a function of its own in the place of `print`, and leave it there.
    os.environ.setdefault("RAY_TQDM_PATCH_PRINT", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs Ray, which is not installed: pip install 'perception[ray]'") from None
    if ray.is_initialized():
        yield ray
        return
    with _started(ray) if address is None else _connected(ray, address):
        yield ray


@contextmanager
def _started(ray: ModuleType) -> Iterator[None]:
    # Ray's processes give way to all others unless they are told not to.
    os.environ.setdefault("RAY_worker_niceness", "0")
    folder = tempfile.mkdtemp(prefix="ray")
    try:
        if len(folder) > _LONGEST_FOLDER:
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
        try:
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level="error",
                object_store_memory=_STORE,
                _plasma_directory=store_folder(folder),
                _temp_dir=folder,
            )
        except Exception as error:  # Ray raises this very class when its processes do not come up in time
            raise UserError(f"Ray cannot be started on this machine: {_first_line(error)}") from error
        try:
            yield
        finally:
            ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def store_folder(temporary: str, shared_memory: Path = _SHARED_MEMORY) -> str:
    """Where the object store goes: into shared memory, or in a container with little of it into a folder.

    Raises:
        UserError: there is room in neither.
    """
    free = {place: shutil.disk_usage(place).free if place.is_dir() else 0 for place in (shared_memory, Path(temporary))}
    for place, room in free.items():
        if room > 1.1 * _STORE:
            return str(place)
    rooms = " and ".join(f"{place} {room // 2**20}" for place, room in free.items())
    raise UserError(
        f"Ray's object store needs {_STORE // 2**20} MiB, and of free MiB there are in {rooms}: give a container "
        "more with --shm-size 256m, or name another folder in TMPDIR"
    )


@contextmanager
def _connected(ray: ModuleType, address: str) -> Iterator[None]:
    if "://" in address:
        raise UserError(
            f"--ray-address {address} is a client's address; start the command on a machine of the cluster, "
            "with --ray-address auto or HOST:PORT"
        )
    if address != "auto":
        _reach(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(f"the Ray cluster at {address} cannot be joined: {_first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--ray-address must be auto or HOST:PORT, got {address!r}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT).close()
    except (OSError, OverflowError) as error:
        raise UserError(
            f"there is no Ray cluster at {address} ({error}); start one there with: ray start --head --port {port}"
        ) from error


def places(ray: ModuleType, needs: Needs) -> list[dict[str, Any]]:
    """Nodes that have room for an actor.

    Raises:
        UserError: there are none.
    """
    alive = [node for node in ray.nodes() if node["Alive"]]
    fitting = [node for node in alive if needs.fits(node)]
    if not fitting:
        nodes = ", ".join(
            f"{node['Resources'].get('CPU', 0):g} CPUs and {node['Resources'].get('GPU', 0):g} GPUs" for node in alive
        )
        raise UserError(f"an actor of {needs} fits on no node of the cluster ({nodes}); ask for less of them")
    return fitting


def check_nodes(
    ray: ModuleType, nodes: Sequence[dict[str, Any]], look: Callable[..., str | None], *arguments: Any
) -> None:
    """Lets each node look whether it can do the work.

    Args:
        ray: connected.
        nodes: that may get actors.
        look: returns what is wrong, or None.
        arguments: its.

    Raises:
        UserError: something is wrong on one of them.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    looks = {}
    for node in nodes:
        there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        task = ray.remote(look).options(num_cpus=0, max_retries=0, scheduling_strategy=there)
        looks[task.remote(*arguments)] = node
    done, late = ray.wait(list(looks), num_returns=len(looks), timeout=_PROBE)
    if late:
        raise UserError(f"node {_name(looks[late[0]])} of the cluster does not answer within {_PROBE:g} s")
    for result in done:
        try:
            wrong = ray.get(result)
        except ray.exceptions.RayError as error:
            wrong = f"a task of perception fails there: {_last_line(error)}"
        if wrong:
            raise UserError(f"node {_name(looks[result])} of the cluster cannot do its part: {wrong}")


def look(torch_version: str, folder: str, files: dict[str, int], parts: str) -> str | None:
    """On a node: what is wrong there.

    Args:
        torch_version: that it should have.
        folder: of the sources.
        files: with their sizes.
        parts: a folder below OUT.
    """
    here = version("torch")
    if here != torch_version:
        return f"it has torch {here}, the machine that asks {torch_version}: results would differ"
    missing = [name for name in (folder, *files) if not os.path.exists(name)]
    if missing:
        return f"{missing[0]} is not there; sources, config and checkpoint have to lie on a file system of all nodes"
    for name, size in files.items():
        if os.path.getsize(name) != size:
            return f"{name} is another file there"
    probe = Path(parts) / f"probe-{os.getpid()}"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        return f"it cannot write to --out ({error}); the output folder has to lie on a file system of all nodes"
    return None


def why(error: BaseException) -> str:
    """A few words on the death of an actor."""
    found = re.search(r"because (.+?)[.\n]", str(error))
    return found[1] if found else _first_line(error)


def _name(node: dict[str, Any]) -> str:
    return node["NodeManagerAddress"]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
