"""An actor of an engine, in this process: a loop with a memory never runs ahead of the journal."""

import contextlib
import sys
import types

import pytest
import torch

from perception.engine.atomic import replacing
from perception.engine.errors import UserError
from perception.inference.engines.engine import Recipe
from perception.inference.engines.folder_worker import FolderRun
from perception.inference.engines.member import Finished, Member, Ran, Shard, Told
from perception.inference.kinds import build_kind
from perception.inference.streamed import Streamed
from perception.inference.writing import Files
from tests.inference.toy_texts import Texts


@pytest.fixture
def make(tmp_path, monkeypatch, here):
    """A member of a run, with the sources of the folder."""
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    (tmp_path / "parts").mkdir()

    def member(kind, module, **options):
        config, weights = tmp_path / "config.py", tmp_path / "weights.pth"
        config.write_text(
            f'custom_imports = dict(imports=["tests.inference.{module}"])\nmodel = dict()\n'
            f"folder_kind = dict(type={kind!r}, **{options!r})\n"
        )
        torch.save({"weight": 1}, weights)
        recipe = Recipe(str(config), weights, 4, 1, "cpu", True, True, {}, {}, str(tmp_path), 1)
        cfg, built = recipe.load()
        assert type(build_kind(cfg, {})) is type(built)
        sources = built.reader(None).scan(tmp_path / "in", [], tmp_path / "out").sources
        made = Member(
            FolderRun(recipe, Files(tmp_path / "out", tmp_path / "parts")), [source.name for source in sources]
        )
        made.start()
        return made, sources

    return member


def _write(folder, texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _drained(member, shards, acknowledged=0):
    """Events until all shards are finished."""
    events = member.exchange(shards, acknowledged)
    while sum(isinstance(event, Finished) for event in events) < len(shards):
        events += member.exchange([], acknowledged + len(events))
    return events


def test_chunks_of_texts(make, tmp_path):
    _write(tmp_path / "in", {f"{number:03d}.txt": "word " * number for number in range(100)})
    member, sources = make("Texts", "toy_texts")
    done = {sources[3].name: {"file_name": sources[3].name, "words": 3}}
    events = _drained(member, [Shard(0, sources[:64], done), Shard(1, sources[64:], {})])
    ran = {(event.shard, event.place): event.record for event in events if isinstance(event, Ran)}
    assert len(ran) == 99
    assert ran[1, 5] == {"file_name": "069.txt", "file_size": 345, "words": 69}
    assert (0, 3) not in ran
    assert not list((tmp_path / "parts").iterdir())
    assert len(list((tmp_path / "out/counts").iterdir())) == 99
    # Later ones go on with the same model.
    assert len(_drained(member, [Shard(2, sources[:2], {})], len(events))) == 3


def test_a_sequence_waits_for_its_lines(make, tmp_path):
    _write(tmp_path / "in", {f"ann/{page}.txt": "word " * page for page in range(1, 5)})
    member, sources = make("Diaries", "toy_diaries")
    events = member.exchange([Shard(0, sources, {})], 0)
    assert [event.record["words"] for event in events] == [1]
    assert member.exchange([], 0) == []  # the line of the first page is not written yet
    while not isinstance(events[-1], Finished):
        events += member.exchange([], len(events))
    assert [event.record["words"] for event in events if isinstance(event, Ran)] == [1, 3, 6, 10]
    assert [event for event in events if isinstance(event, Told)] == [Told("sequence_done", ("ann",))]
    assert isinstance(events[-2], Told)
    assert not (tmp_path / "out/state").exists()


class _Readers:
    """A predictor of whole sources."""

    @contextlib.contextmanager
    def results(self, source, kept, note, say):
        say(f"{source.name} is opened")
        kept.offer(1, source.name, lambda: {"words": torch.ones(1)})
        kept.save(1)
        yield "sample", len(source.path.read_text().split())


def test_a_whole_source_keeps_its_state_until_its_line_is_written(make, tmp_path, monkeypatch):
    monkeypatch.setattr(Texts, "loop", lambda self, running: Streamed())
    monkeypatch.setattr(Texts, "predictor", lambda self, cfg, checkpoint, running: _Readers())
    _write(tmp_path / "in", {"a.txt": "one two", "b.txt": "one"})
    member, sources = make("Texts", "toy_texts")
    events = member.exchange([Shard(0, sources[:1], {}), Shard(1, sources[1:], {})], 0)
    while len(events) < 2:
        events += member.exchange([], 0)
    assert events == [
        Told("say", ("a.txt is opened",)),
        Ran(0, 0, {"file_name": "a.txt", "file_size": 7, "words": 2}),
    ]
    (state,) = (tmp_path / "out/state").iterdir()
    while sum(isinstance(event, Finished) for event in events) < 2:
        events += member.exchange([], len(events))
    assert not state.parent.exists()
    assert not list((tmp_path / "parts").iterdir())


def test_what_ends_a_worker_is_raised(make, tmp_path, monkeypatch):
    _write(tmp_path / "in", {f"{number}.txt": "word" for number in range(5)})
    member, sources = make("Texts", "toy_texts")
    monkeypatch.setattr("tests.inference.toy_texts.WordCounter.predict", lambda self, batch: 1 / 0)
    with pytest.raises(UserError, match="the model fails on every text: ZeroDivisionError"):
        _drained(member, [Shard(0, sources, {})])


def test_who_has_lost_its_folder_cannot_write(tmp_path):
    parts = tmp_path / "parts"
    parts.mkdir()
    files = Files(tmp_path / "out", parts)
    with files.replacing("a/b.txt") as file:
        file.write(b"whole")
        assert list(parts.iterdir())
    assert (tmp_path / "out/a/b.txt").read_bytes() == b"whole"
    parts.rmdir()
    with pytest.raises(UserError, match=r"cannot write .*b\.txt"), files.replacing("a/b.txt") as file:
        file.write(b"late")
    assert (tmp_path / "out/a/b.txt").read_bytes() == b"whole"
    with replacing(tmp_path / "out/c.txt") as file:
        file.write(b"alone")
    assert (tmp_path / "out/c.txt").read_bytes() == b"alone"
