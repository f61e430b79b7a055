"""Folders on a Ray cluster, two nodes on this machine: the bytes of a local run, whatever is killed meanwhile."""

import builtins
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from perception.engine.errors import UserError
from perception.inference.engines.cluster import look, store_folder
from perception.inference.engines.local import Local
from perception.inference.engines.ray_engine import RayEngine
from perception.inference.folder import Job, run
from tests.conftest import REPOSITORY

ray = pytest.importorskip("ray", reason="needs Ray: pip install 'perception[ray]'")
pytestmark = pytest.mark.xdist_group("ray")

NODE = dict(num_cpus=1, object_store_memory=80 * 2**20, include_log_monitor=False)
QUICK = {"health_check_period_ms": 500, "health_check_initial_delay_ms": 0, "memory_monitor_refresh_ms": 0}
TEXTS = 200


@pytest.fixture(scope="module")
def cluster():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(REPOSITORY))
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("RAY_worker_niceness", "0")
        others = set(_descendants(os.getpid()))  # of tests before
        cluster = Cluster(True, head_node_args={**NODE, "no_monitor": True, "_system_config": QUICK})
        processes = [process for process in _descendants(os.getpid()) if process not in others]
        try:
            yield cluster
        finally:
            cluster.shutdown()
            _wait(lambda: not any(map(_alive, processes)), 120)
            assert not any(map(_alive, processes)), "processes of Ray are left"


@pytest.fixture
def second(cluster):
    """A node that comes and goes."""
    node = cluster.add_node(**NODE)
    yield node
    if node in cluster.list_all_nodes():
        cluster.remove_node(node)


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    for number in range(TEXTS - 1):
        (folder / ("sub" if number % 2 else ".") / f"{number:03d}.txt").write_text("word " * (number % 7))
    (folder / "picture.txt").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture
def make_job(tmp_path):
    def make(kind, folder, out, engine=None, **options):
        config = tmp_path / "config.py"
        module = {"Texts": "toy_texts", "Diaries": "toy_diaries"}[kind]
        config.write_text(
            f'custom_imports = dict(imports=["tests.inference.{module}"])\n'
            f"model = dict()\nfolder_kind = dict(type={kind!r}, **{options!r})\n"
        )
        torch.save({"weight": 1}, tmp_path / "weights.pth")
        job = Job(str(config), tmp_path / "weights.pth", folder, tmp_path / out, workers=1, device="cpu")
        return job if engine is None else dataclasses.replace(job, engine=engine)

    return make


def test_a_process_and_a_node_are_killed(cluster, second, texts, make_job, tmp_path, capsys, here):
    (texts / "100.txt").write_text("a deadly word")
    options = {"seconds": 0.1, "mark": str(tmp_path / "mark")}
    job = make_job("Texts", texts, "out", RayEngine(cluster.address, actors=2), **options)
    with _once(lambda: _lines(job) > 80, lambda: cluster.remove_node(second, allow_graceful=False)):
        report = run(job)
    assert second not in cluster.list_all_nodes(), "the run was over before a node was killed"
    assert report.finished == TEXTS - 1
    assert report.skipped == {"picture.txt": "not a text"}
    assert capsys.readouterr().err.count("an actor died because") >= 1
    local = make_job("Texts", texts, "local", **options)
    run(local)
    assert _files(job.out) == _files(local.out)


def test_a_driver_is_killed_and_another_engine_goes_on(cluster, texts, make_job, here):
    job = make_job("Texts", texts, "out", RayEngine(cluster.address), seconds=0.1)
    done = _run_and_kill(job, 20, cluster.address)
    assert 20 <= done < TEXTS - 20
    report = run(dataclasses.replace(job, engine=Local()))
    assert report.reused == TEXTS - 1 - report.finished >= done - 1
    local = make_job("Texts", texts, "local", seconds=0.1)
    run(local)
    assert _files(job.out) == _files(local.out)


def test_sequences_go_to_one_actor_each(cluster, tmp_path, make_job, here):
    folder = tmp_path / "diaries"
    for diary, pages in {"ann": 5, "bob": 30, "eve": 1}.items():
        (folder / diary).mkdir(parents=True)
        for page in range(1, pages + 1):
            (folder / diary / f"{page}.txt").write_text("word " * page)
    (folder / "bob/7.txt").write_bytes(b"\xff\xd8\xff")
    (folder / "bob/25.txt").write_text("illegible")
    job = make_job("Diaries", folder, "out", RayEngine(cluster.address), seconds=0.1)
    assert 8 <= _run_and_kill(job, 8, cluster.address) < 30
    report = run(job)
    assert report.reused >= 6
    assert {name for name in report.skipped if name != "bob/7.txt"} == {f"bob/{page}.txt" for page in range(25, 31)}
    local = make_job("Diaries", folder, "local", seconds=0.1)
    run(local)
    for out in (job.out, local.out):  # which page a state is of depends on the time that it takes to keep it
        shutil.rmtree(out / "state", ignore_errors=True)
    assert _files(job.out) == _files(local.out)


def test_what_cannot_be_is_said_before(cluster, texts, make_job, tmp_path):
    def refused(engine, **changes):
        job = dataclasses.replace(make_job("Texts", texts, "out", engine), **changes)
        with pytest.raises(UserError) as caught:
            run(job)
        assert not _lines(job)
        return str(caught.value)

    address = cluster.address
    assert "an actor of 1 CPUs and 3 GPUs fits on no node of the cluster (1 CPUs and 0 GPUs)" in refused(
        RayEngine(address, gpus=3.0), device=None
    )
    assert "an actor of 64 CPUs fits on no node" in refused(RayEngine(address, cpus=64.0))
    assert "--gpus-per-actor and --device cpu contradict" in refused(RayEngine(address, gpus=1.0))
    assert "Ray chooses among the GPUs" in refused(RayEngine(address), device="cuda:1")
    assert "there is no Ray cluster at localhost:1 " in refused(RayEngine("localhost:1"))
    assert "must be auto or HOST:PORT" in refused(RayEngine("nowhere"))
    assert "is a client's address" in refused(RayEngine("ray://head:10001"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", None)
        assert "pip install 'perception[ray]'" in refused(RayEngine())
    job_config = tmp_path / "config.py"
    with pytest.MonkeyPatch.context() as patch:
        # A node on which files are others.
        patch.setattr(os.path, "getsize", lambda path: 1)
        assert f"of the cluster cannot do its part: {job_config} is another file there" in refused(RayEngine(address))
    assert not list(tmp_path.glob("out/.parts"))


def test_options_belong_to_the_engine(texts, make_job, run_tool):
    job = make_job("Texts", texts, "out")
    refused = run_tool("infer", job.config, job.checkpoint, texts, "--out", job.out, "--actors", 2)
    assert refused.code == 1
    assert "--actors belongs to --engine ray" in refused.err


def test_a_gallery_is_encoded_by_actors(cluster, tmp_path):
    import numpy as np
    from PIL import Image

    gallery, queries = tmp_path / "gallery", tmp_path / "queries"
    gallery.mkdir()
    queries.mkdir()
    generator = np.random.default_rng(0)
    for number in range(40):
        colour = np.full((16, 16, 3), generator.integers(0, 256, 3), np.uint8)
        Image.fromarray(colour).save(gallery / f"satellite_{47 + number / 1000:.4f}_8.5000.png")
    Image.fromarray(colour.repeat(2, 1)).save(queries / "query.png")
    (gallery / "satellite_48.0000_8.5000.png").write_bytes(b"no picture")
    config, weights = tmp_path / "config.py", tmp_path / "weights.pth"
    config.write_text(
        'custom_imports = dict(imports=["tests.inference.retrieval.toy_model", '
        '"perception.inference.retrieval.kind"])\n'
        'default_scope = "mmengine"\nmodel = dict(type="Colours")\n'
        'folder_kind = dict(type="Panoramas", ground_size=(32, 64), tile_side=64)\n'
    )
    torch.save({"state_dict": {"scale": torch.ones(1)}}, weights)

    def job(name, **changes):
        options = {"gallery": gallery, "bank": tmp_path / f"bank_{name}", "bank_batch": 4, "where": "none"}
        return Job(str(config), weights, queries, tmp_path / name, workers=1, device="cpu", options=options, **changes)

    run(job("local"))
    run(job("ray", engine=RayEngine(cluster.address)))
    assert _files(tmp_path / "bank_ray") == _files(tmp_path / "bank_local")
    assert _files(tmp_path / "ray") == _files(tmp_path / "local")
    assert builtins.print.__module__ == "builtins", "Ray has taken the place of print"


def test_a_node_has_a_look(tmp_path):
    from importlib.metadata import version

    here = version("torch")
    (tmp_path / "weights").write_bytes(b"123")
    good = here, str(tmp_path), {str(tmp_path / "weights"): 3}, str(tmp_path)
    assert look(*good) is None
    assert "results would differ" in look("0.1", *good[1:])
    assert "have to lie on a file system of all nodes" in look(here, str(tmp_path / "none"), *good[2:])
    assert "is another file there" in look(*good[:2], {str(tmp_path / "weights"): 4}, good[3])
    assert "cannot write to --out" in look(*good[:3], str(tmp_path / "none"))


def test_the_object_store_goes_where_there_is_room(tmp_path, monkeypatch):
    shared = tmp_path / "shm"
    shared.mkdir()
    free = {shared: 64, tmp_path: 4096}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": free[Path(path)] * 2**20}))
    assert store_folder(str(tmp_path), shared) == str(tmp_path)
    free[shared] = 2048
    assert store_folder(str(tmp_path), shared) == str(shared)
    free.update({shared: 64, tmp_path: 10})
    with pytest.raises(UserError, match="--shm-size 256m"):
        store_folder(str(tmp_path), shared)


def _files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _lines(job):
    with suppress(FileNotFoundError):
        return (job.out / "predictions.jsonl").read_bytes().count(b"\n")
    return 0


def _run_and_kill(job, after, address):
    """Runs a job on the cluster from a process of its own, which is killed when the journal has `after` lines."""
    with subprocess.Popen(
        [sys.executable, REPOSITORY / "tools/infer.py", job.config, job.checkpoint, job.folder, "--out", job.out,
         "--workers", "1", "--device", "cpu", "--engine", "ray", "--ray-address", address],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    ) as process:  # fmt: skip
        _wait(lambda: _lines(job) >= after or process.poll() is not None, 300)
        process.send_signal(signal.SIGKILL)
        said = process.stderr.read()
    assert _lines(job) >= after, said
    return _lines(job)


@contextmanager
def _once(condition, action):
    """Does something in a thread as soon as a condition holds."""
    over = threading.Event()

    def watch():
        while not over.wait(0.02):
            if condition():
                action()
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _wait(condition, seconds):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.05)


def _descendants(process):
    children = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = []
    waiting = [process]
    while waiting:
        new = children.get(waiting.pop(), [])
        found += new
        waiting += new
    return found


def _alive(process):
    with suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
