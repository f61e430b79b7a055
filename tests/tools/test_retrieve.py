"""Folders of panoramas against a gallery: the command, what it writes, what it refuses, kills."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from perception.inference import loops
from perception.inference.retrieval import encoding
from tests.conftest import REPOSITORY
from tests.inference.conftest import HerePool
from tests.inference.toy_work import lines_of, until

COLOURS = [(250, 20, 20), (20, 250, 20), (20, 20, 250), (240, 240, 20), (240, 20, 240), (20, 240, 240)]


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(loops, "WorkerPool", HerePool)
    monkeypatch.setattr(encoding, "WorkerPool", HerePool)


def tile_name(number):
    return f"satellite_{50 + number / 1000:.4f}_8.0000.png"


@pytest.fixture
def world(tmp_path):
    """Six tiles of one colour each, with a bright corner, and a panorama of each colour taken in that corner."""
    for name in ("gallery", "queries"):
        (tmp_path / name).mkdir()
    metres = 6_371_008.8 * np.pi / 180
    for number, colour in enumerate(COLOURS):
        tile = np.full((64, 64, 3), colour, np.uint8)
        tile[8:16, 40:48] = 255  # row 12 and column 44 of 64
        Image.fromarray(tile).save(tmp_path / "gallery" / tile_name(number))
        # 20 rows up and 12 columns to the right of the middle, at 0.5 m a pixel.
        latitude, longitude = 50 + number / 1000 + 10 / metres, 8 + 6 / metres / np.cos(np.deg2rad(50 + number / 1000))
        panorama = np.full((32, 64, 3), colour, np.uint8)
        Image.fromarray(panorama).save(tmp_path / "queries" / f"q{number},{latitude:.7f},{longitude:.7f},.png")
    return tmp_path


@pytest.fixture
def command(world, run_tool):
    def run(*more, seconds=0.0, out="out", scale=("--metres-per-pixel", 0.5), weights="weights.pth"):
        return run_tool("retrieve", *arguments(world, *more, seconds=seconds, out=out, scale=scale, weights=weights))

    return run


def arguments(world, *more, seconds=0.0, out="out", scale=("--metres-per-pixel", 0.5), weights="weights.pth"):
    config = world / "config.py"
    config.write_text(
        'custom_imports = dict(imports=["tests.inference.retrieval.toy_model"])\n'
        'default_scope = "mmengine"\n'
        f'model = dict(type="Colours", seconds={seconds})\n'
        'folder_kind = dict(type="Panoramas", ground_size=(32, 64), tile_side=64, bank_batch=2)\n'
    )
    if not (world / weights).exists():
        torch.save({"state_dict": {"scale": torch.ones(1)}}, world / weights)
    inputs = ["--queries", world / "queries", "--gallery", world / "gallery"]
    common = ["--out", world / out, "--workers", 1, "--device", "cpu", "--batch-size", 2]
    return [config, world / weights, *inputs, *common, *scale, *more]


def files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def records(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").open()]


@pytest.mark.usefixtures("here")
class TestResults:
    def test_everything_is_found(self, world, command):
        done = command("--query-places", "comma")
        assert done.code == 0, done.err
        assert "6 queries done in" in done.out
        assert "gallery: 6 tiles to encode" in done.err
        assert "measures 32.0 m, 0.5000 m a pixel" in done.err
        for number, record in enumerate(records(world / "out")):
            assert record["matches"][0]["tile"] == tile_name(number)
            assert record["matches"][0]["similarity"] == pytest.approx(1, abs=0.02)
            assert len(record["matches"]) == 6
            assert [("rerank" in match) for match in record["matches"]] == [True, True, False, False, False, False]
            assert record["position"]["tile"] == tile_name(number)
            assert (record["position"]["row"], record["position"]["column"]) == (12.0, 44.0)
            assert record["truth"]["error_m"] < 0.05
        rows = list(csv.DictReader((world / "out" / "results.csv").open()))
        assert [row["tile"] for row in rows] == [tile_name(number) for number in range(6)]
        points = json.loads((world / "out" / "results.geojson").read_text())["features"]
        assert points[0]["geometry"]["coordinates"][1] == pytest.approx(50.00009, abs=1e-5)
        numbers = json.loads((world / "out" / "summary.json").read_text())
        assert numbers["queries"] == numbers["compared"] == 6
        assert numbers["within_1m"] == 100
        picture = Image.open(next((world / "out" / "images").iterdir()))
        assert picture.size[0] == 5 * 230 + 10

    def test_ties_and_batches_change_nothing(self, world, command):
        """Three files of the same bytes, a tile as similar as another one, batches of any size."""
        (world / "gallery" / "satellite_49.0_8.0.png").write_bytes((world / "gallery" / tile_name(3)).read_bytes())
        (world / "gallery" / "satellite_60.0_8.0.png").write_bytes((world / "gallery" / tile_name(3)).read_bytes())
        twin = np.asarray(Image.open(world / "gallery" / tile_name(4)))[:, ::-1]  # equal mean colour, other bytes
        Image.fromarray(twin).save(world / "gallery" / "satellite_49.5_8.0.png")
        assert command().code == 0
        first = records(world / "out")
        assert first[3]["matches"][0]["tile"] == "satellite_49.0_8.0.png"
        assert first[3]["matches"][0]["duplicates"] == [tile_name(3), "satellite_60.0_8.0.png"]
        assert [match["tile"] for match in first[4]["matches"][:2]] == ["satellite_49.5_8.0.png", tile_name(4)]
        assert command("--batch-size", 5, out="other").code == 0
        for name, content in files(world / "out").items():
            if name != "run.json":
                assert (world / "other" / name).read_bytes() == content, name

    def test_later_runs_encode_only_what_is_new(self, world, command):
        assert command().code == 0
        Image.fromarray(np.full((64, 64, 3), (120, 60, 10), np.uint8)).save(world / "gallery" / tile_name(9))
        refused = command()
        assert refused.code == 1
        assert re.search(r"holds a run with other settings \(gallery_files .*--overwrite to replace it", refused.err)
        done = command("--overwrite", "--top", 1)
        assert done.code == 0, done.err
        assert "gallery: 1 tiles to encode, 6 are in the bank, 0 are gone" in done.err
        assert all(len(record["matches"]) == 1 for record in records(world / "out"))

    def test_superglobal(self, world, command):
        assert command("--superglobal", "--rerank", 0, "--no-images").code == 0
        found = records(world / "out")
        assert [record["matches"][0]["tile"] for record in found] == [tile_name(number) for number in range(6)]
        assert "rerank" not in found[0]["matches"][0]
        assert not (world / "out" / "images").exists()

    def test_approximate_index(self, world, command):
        pytest.importorskip("faiss")
        assert command("--no-images").code == 0
        done = command("--index", "hnsw", "--no-images", out="other")
        assert done.code == 0, done.err
        assert "approximate index: recall@10 1.000" in done.err
        assert (world / "out" / "results.csv").read_bytes() == (world / "other" / "results.csv").read_bytes()

    def test_without_faiss(self, command, monkeypatch):
        monkeypatch.setitem(sys.modules, "faiss", None)
        done = command("--index", "hnsw")
        assert done.code == 1
        assert "--index hnsw needs faiss: pip install faiss-cpu" in done.err

    def test_without_coordinates(self, world, command):
        (world / "gallery" / tile_name(0)).rename(world / "gallery" / "anything.png")
        assert command("--where", "none", scale=()).code == 0
        assert not (world / "out" / "results.geojson").exists()
        record = records(world / "out")[0]
        assert record["matches"][0]["tile"] == "anything.png"
        assert "latitude" not in record["position"]

    def test_damaged_files_are_named(self, world, command):
        (world / "queries" / "text.jpg").write_text("no picture")
        (world / "queries" / "empty.jpg").write_bytes(b"")
        Image.new("RGB", (64, 40)).save(world / "queries" / "cropped.png")
        Image.new("RGB", (64, 32)).save(world / "queries" / "black.png")
        (world / "gallery" / "satellite_1_1.png").write_text("no picture")
        Image.new("RGB", (64, 32)).save(world / "gallery" / "satellite_1_2.png")
        Image.new("RGB", (64, 64)).save(world / "gallery" / "satellite_1_3.png")
        done = command()
        assert done.code == 3
        assert "4 skipped:" in done.out
        for text in (
            "black.png: its descriptor is zero or not finite",
            "cropped.png: no full panorama: 64 x 40 pixels instead of 2 : 1",
            "empty.jpg: empty file",
            "text.jpg: not an image",
        ):
            assert text in done.out
        unusable = json.loads((world / "out" / "summary.json").read_text())["unusable_tiles"]
        assert unusable["satellite_1_2.png"] == "no square tile: 64 x 32 pixels"
        assert unusable["satellite_1_3.png"] == "its descriptor is zero or not finite"
        assert "not an image" in unusable["satellite_1_1.png"]
        assert "NaN" not in (world / "out" / "predictions.jsonl").read_text()


@pytest.mark.usefixtures("here")
class TestRefusals:
    """One sentence, exit status 1 or 2, before anything is encoded."""

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            ([], "nothing says how large the tiles are"),
            (["--zoom", 20, "--metres-per-pixel", 1], "say the same; give one"),
            (["--zoom", 99], "--zoom must be 0 to 30, got 99"),
            (["--metres-per-pixel", -1], "--metres-per-pixel must be positive, got -1"),
            (["--original-size", 640], "belong to --zoom"),
            (["--zoom", 20, "--rerank", -1], "--rerank must not be negative"),
            (["--zoom", 20, "--where", "xyz"], "do not say in their names where they are"),
            (["--zoom", 20, "--where", "geotiff"], "has no coordinate system"),
            (["--zoom", 20, "--places", "no_table.csv"], "no_table.csv cannot be read"),
            (["--zoom", 20, "--query-places", "no_table.csv"], "--query-places is neither a file nor one of"),
            (["--zoom", 20, "--gallery", "no_folder"], "gallery no_folder is not a folder"),
            (["--zoom", 20, "--queries", "no_folder"], "no_folder does not exist"),
            (["--zoom", 20, "--device", "gpu7"], "--device gpu7 cannot be used"),
        ],
    )
    def test_options(self, command, more, message):
        done = command(*more, scale=())
        assert done.code == 1, done.err
        assert message in done.err
        assert "Traceback" not in done.err
        assert "to encode" not in done.err

    def test_folders(self, world, command):
        (world / "empty").mkdir()
        assert "holds no images" in command("--gallery", world / "empty").err
        assert "holds no queries" in command("--queries", world / "empty").err
        done = command("--gallery", world / "queries", "--where", "comma")
        assert "the gallery's tiles must be square, but q0" in done.err

    def test_a_bank_of_other_weights(self, world, command):
        assert command().code == 0
        torch.save({"state_dict": {"scale": torch.ones(1) * 2}}, world / "other.pth")
        done = command(weights="other.pth", out="other")
        assert done.code == 1
        assert "the bank in" in done.err
        assert "was made with another checkpoint" in done.err

    def test_a_detector(self, world, run_tool):
        given = arguments(world)
        given[0] = "configs/demo/rank_detr.py"
        assert "is not a config of a model that retrieves" in run_tool("retrieve", *given).err

    def test_infer_says_where_to_go(self, world, run_tool):
        given = arguments(world)
        done = run_tool("infer", given[0], given[1], world / "queries", "--out", world / "out")
        assert done.code == 2
        assert "--gallery" in done.err


def test_a_killed_run_ends_like_one_that_is_not(world, here, command):
    """Killed while the gallery is encoded, then while queries are ranked."""
    given = [str(part) for part in arguments(world, "--batch-size", 1, seconds=0.3)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    for path in (world / "gallery.bank" / "new_tiles.jsonl", world / "out" / "predictions.jsonl"):
        with subprocess.Popen(
            [sys.executable, "tools/retrieve.py", *given],
            cwd=REPOSITORY, env=environment | until(path, 2), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            while lines_of(path) < 2 and process.poll() is None:
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert 2 <= lines_of(path) < 6
    resumed = command("--batch-size", 1, seconds=0.3)
    assert resumed.code == 0, resumed.err
    assert "were done before" in resumed.out
    bank = world / "gallery.bank"
    bank.rename(world / "first.bank")
    assert command("--batch-size", 1, seconds=0.3, out="whole").code == 0
    assert files(world / "first.bank") == files(bank)
    assert files(world / "out") == files(world / "whole")
