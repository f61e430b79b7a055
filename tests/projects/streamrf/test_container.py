"""The stream on disk: it is exact, small, and says what is wrong with it."""

import os
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from perception.engine.errors import UserError
from perception.radiance.row_coding import encode_rows, sh_columns
from projects.streamrf import cli, released
from projects.streamrf.container import BASE, FRAME, KEY, StreamReader, StreamWriter
from projects.streamrf.delta import BaseModel, FieldState, Rendering, decode_frame, encode_frame

SIZE = (14, 12, 10)
FRAMES = 4
STEP = 2.0**-8
VERSION_1 = Path(__file__).parents[2] / "data/streamrf_version_1"  # written by the first version of the format


def ball(shift: float, seed: int, half: bool = True, step: float = 0.0) -> FieldState:
    """A shell whose coefficients vary smoothly, with noise."""
    x, y, z = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in SIZE), indexing="ij")
    active = ((x - shift) ** 2 + y**2 + z**2 - 0.5).abs() < 0.3
    place = torch.stack([x, y, z], -1)[active]
    noise = torch.Generator().manual_seed(seed)
    wave = torch.arange(27) * 0.1
    sh = torch.sin(place.sum(1, keepdim=True) + wave) * 0.3 + 0.05 * torch.randn(len(place), 27, generator=noise)
    density = 20 + 5 * torch.randn(len(place), 1, generator=noise)
    state = FieldState(active, density, sh, torch.tensor([1.0, 1.1, 1.0]), torch.tensor([0.0, 0.1, 0.0]))
    return state.stored(half, step)


def write(folder: Path, half: bool = True, step: float = 0.0, key_every: int = 0):
    """A stream of four frames, its states and differences."""
    state = ball(0.0, 0, half, step)
    base = BaseModel(state, half, Rendering((24.0, 24.0, 24.0, 18.0)), "cameras", {"preset": "test"})
    writer, states, deltas = StreamWriter.create(folder, base, key_every), [state], []
    for frame in range(1, FRAMES):
        after = ball(0.1 * frame, frame, half, step)
        delta = encode_frame(frame, state, after, keep_threshold=1.0, prune_threshold=0.1, half=half, sh_step=step)
        state = decode_frame(state, delta)
        writer.add(delta, state)
        states.append(state)
        deltas.append(delta)
    return states, deltas


def same(one: FieldState, two: FieldState) -> bool:
    names = ("active", "density", "sh", "radius", "center")
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream") / "s"
    states, deltas = write(folder, key_every=2)
    return folder, states, deltas


@pytest.fixture
def copied(stream, tmp_path):
    return Path(shutil.copytree(stream[0], tmp_path / "copy"))


@pytest.mark.slow
@pytest.mark.parametrize(("half", "step"), [(True, 0.0), (False, 0.0), (True, STEP)])
def test_every_frame_comes_back_bit_by_bit(tmp_path, half, step):
    states, deltas = write(tmp_path / "s", half, step)
    reader = StreamReader(tmp_path / "s")
    assert reader.frames == FRAMES
    assert reader.base.rendering.ndc == (24.0, 24.0, 24.0, 18.0)
    assert all(same(state, states[frame]) for frame, state in reader.states())
    for delta in deltas:
        read = reader.delta(delta.frame)
        for name in ("active", "changed", "added_density", "added_sh", "changed_density", "changed_sh"):
            assert torch.equal(getattr(read, name), getattr(delta, name)), name
            assert getattr(read, name).dtype == getattr(delta, name).dtype


def test_streams_of_version_1_are_read(tmp_path, capsys):
    assert all((VERSION_1 / name).read_bytes()[8:10] == b"\1\0" for name in (BASE, FRAME.format(2), KEY.format(2)))
    reader = StreamReader(VERSION_1)
    assert (reader.frames, reader.keys, reader.base.half) == (3, [2], True)
    with np.load(VERSION_1 / "expected.npz") as expected:
        for frame, state in reader.states():
            for name in ("active", "density", "sh"):
                assert (getattr(state, name).numpy() == expected[f"{name}_{frame}"]).all(), (name, frame)
    cli.run(["verify", str(VERSION_1)])
    assert "3 frames and 1 key frames are whole" in capsys.readouterr().out
    # A stream goes on in the present version.
    folder = Path(shutil.copytree(VERSION_1, tmp_path / "s"))
    writer, before = StreamWriter.resume(folder, 2), reader.decode(2)
    delta = encode_frame(3, before, reader.decode(0), keep_threshold=0.1, prune_threshold=0.1)
    state = decode_frame(before, delta)
    writer.add(delta, state)
    assert (folder / FRAME.format(3)).read_bytes()[8:10] == b"\2\0"
    assert same(StreamReader(folder).decode(3), state)


def test_rounded_coefficients_take_less_than_deflate():
    """The same numbers, multiples of 1/256, as float16; on a field small enough for a test, tables still weigh."""
    noise = np.random.default_rng(0)
    size = (20, 20, 20)
    before = noise.normal(0, 0.15, (4000, 27)).astype(np.float32)
    after = np.round((before + noise.normal(0, 0.05, before.shape)) * 256) / 256 + 0.0
    index = np.sort(noise.choice(8000, 4000, replace=False))
    coded = encode_rows(after.astype(np.float16), index, size, sh_columns(), before)
    assert len(coded) < 0.75 * len(zlib.compress(after.astype(np.float16).tobytes()))


def test_key_frames_give_access_without_what_is_before_them(stream, copied):
    _, states, _ = stream
    first = copied / FRAME.format(1)
    first.write_bytes(first.read_bytes()[:-100])
    assert same(StreamReader(copied).decode(3), states[3])
    with pytest.raises(UserError, match=r"frame_000001\.srf is damaged or cut short"):
        StreamReader(copied).decode(1)


def test_a_resumed_stream_has_the_same_bytes(stream, copied):
    folder, states, deltas = stream
    (copied / ".frame_000003.srf.part").write_bytes(b"half")
    writer = StreamWriter.resume(copied, 1)
    for delta in deltas[1:]:
        writer.add(delta, states[delta.frame])
    assert sorted(path.name for path in copied.iterdir()) == sorted(path.name for path in folder.iterdir())
    assert all((copied / path.name).read_bytes() == path.read_bytes() for path in folder.iterdir())


def _swap(folder: Path) -> None:
    one, two = folder / FRAME.format(1), folder / FRAME.format(2)
    one.rename(folder / "x")
    two.rename(one)
    (folder / "x").rename(two)


def _other_base(folder: Path) -> None:
    other = ball(0.0, 9)
    (folder / BASE).unlink()
    for path in folder.glob("*_*.srf"):
        path.rename(path.with_suffix(".aside"))
    StreamWriter.create(folder, BaseModel(other, True, Rendering(None)))
    for path in folder.glob("*.aside"):
        path.rename(path.with_suffix(".srf"))


def _flip(folder: Path) -> None:
    path = folder / FRAME.format(2)
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda f: (f / FRAME.format(2)).unlink(), r"has frames up to 3, but not frame_000002\.srf"),
        (_flip, r"frame_000002\.srf is damaged or cut short"),
        (lambda f: (f / FRAME.format(1)).write_bytes(b""), r"frame_000001\.srf is not a StreamRF stream"),
        (_swap, r"frame_000001\.srf is damaged: it holds frame 2"),
        (_other_base, r"frame 1 builds on the base [0-9a-f]{8}, but found [0-9a-f]{8}"),
        (lambda f: (f / BASE).unlink(), "there is no stream in"),
    ],
)
def test_what_is_wrong_is_one_sentence(copied, harm, sentence):
    harm(copied)
    for path in copied.glob("key_*"):
        path.unlink()
    with pytest.raises(UserError, match=sentence):
        cli.run(["verify", str(copied)])


def test_a_key_frame_of_another_stream_is_refused(copied, tmp_path):
    shutil.copy(copied / KEY.format(2), tmp_path / "key")
    write(tmp_path / "t", step=STEP)
    shutil.copy(tmp_path / "key", tmp_path / "t" / KEY.format(2))
    with pytest.raises(UserError, match="key frame of another stream"):
        StreamReader(tmp_path / "t").decode(2)


def test_frames_come_in_order_and_finite(tmp_path, stream):
    _, states, deltas = stream
    writer = StreamWriter.create(tmp_path / "s", BaseModel(states[0], True, Rendering(None)))
    with pytest.raises(UserError, match="after frame 0 comes frame 1, not 2"):
        writer.add(deltas[1], states[2])
    broken = replace(deltas[0], changed_sh=deltas[0].changed_sh * float("nan"))
    with pytest.raises(UserError, match="frame 1 cannot be stored: it holds numbers that are not finite"):
        writer.add(broken, states[1])
    with pytest.raises(UserError, match="another base"):
        StreamWriter.create(tmp_path / "s", BaseModel(states[1], True, Rendering(None)))


@pytest.mark.parametrize("kind", ["npz", "pth"])
def test_the_authors_files_there_and_back(stream, tmp_path, kind, capsys):
    folder, states, deltas = stream
    cli.run(["export", str(folder), "--out", str(tmp_path / "out"), "--format", kind])
    deltas_folder = tmp_path / "out" / ("grid_delta_full_z" if kind == "npz" else "grid_delta_full")
    read = released.read_delta(deltas_folder / f"0001.{kind}", 1, states[0])
    assert torch.equal(read.changed_sh.float(), deltas[0].changed_sh.float())
    assert torch.equal(read.active, deltas[0].active)
    cli.run(["import", str(tmp_path / "out/ckpt.npz"), str(deltas_folder), "--out", str(tmp_path / "back")])
    assert same(StreamReader(tmp_path / "back").decode(3), states[3])
    with pytest.raises(UserError, match=rf"0003\.{kind} does not fit frame 3"):
        released.read_delta(deltas_folder / f"0003.{kind}", 3, states[0])


def test_arrays_of_the_npz_are_those_of_the_released_code(stream, tmp_path):
    _, states, deltas = stream
    released.write_npz(tmp_path / "d.npz", deltas[0])
    content = np.load(tmp_path / "d.npz", allow_pickle=True)["arr_0"].item()
    assert sorted(content) == sorted(
        ["mask_next", "mask_keep", "addition_density", "addition_sh", "keep_density", "keep_sh"]
    )
    assert (content["mask_next"] == np.packbits(deltas[0].active.numpy())).all()
    assert content["keep_sh"].dtype == np.float16
    released.write_base(tmp_path / "b.npz", states[0])
    with np.load(tmp_path / "b.npz") as base:
        assert base["links"].dtype == np.int32
        assert base["links"].max() == len(states[0].sh) - 1
        assert base["sh_data"].dtype == np.float16


class _Evil:
    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_nothing_of_a_pickle_is_executed(tmp_path, stream):
    executed = tmp_path / "executed"
    np.savez(tmp_path / "d.npz", np.array({"mask_next": _Evil(executed)}, dtype=object))
    torch.save({"mask_next": _Evil(executed)}, tmp_path / "d.pth")
    for name, sentence in (("d.npz", rf"holds {os.name}\.mkdir"), ("d.pth", "holds more than tensors")):
        with pytest.raises(UserError, match=sentence):
            released.read_delta(tmp_path / name, 1, stream[1][0])
    assert not executed.exists()


def test_info_and_decode(stream, tmp_path, capsys):
    folder, states, _ = stream
    cli.run(["info", str(folder)])
    assert "14 x 12 x 10 voxels, half precision, 4 frames, key frames: 2" in capsys.readouterr().out
    cli.run(["decode", str(folder), "--frame", "3", "--out", str(tmp_path / "f.npz")])
    assert torch.equal(released.read_base(tmp_path / "f.npz").sh, states[3].sh)
    cli.run(["verify", str(folder)])
    assert "4 frames and 1 key frames are whole" in capsys.readouterr().out
