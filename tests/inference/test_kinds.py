"""The seam: two kinds of folder that the package knows nothing of, each in one small file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from perception.engine.errors import UserError
from perception.inference.folder import Job, run
from perception.inference.kinds import build_kind
from perception.inference.loops import WriteQueue
from tests.inference.toy_diaries import Historian
from tests.inference.toy_texts import WordCounter
from tests.inference.toy_work import lines_of, until

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def make_job(tmp_path):
    def make(kind, folder, out="out", **options):
        config = tmp_path / "config.py"
        module = {"Texts": "toy_texts", "Diaries": "toy_diaries"}[kind]
        config.write_text(
            f'custom_imports = dict(imports=["tests.inference.{module}"])\n'
            f"model = dict()\nfolder_kind = dict(type={kind!r}, **{options!r})\n"
        )
        torch.save({"weight": 1}, tmp_path / "weights.pth")
        return Job(str(config), tmp_path / "weights.pth", folder, tmp_path / out, workers=1, device="cpu")

    return make


def _files(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def _records(out):
    return [json.loads(line) for line in (out / "predictions.jsonl").open()]


def _run_and_kill(job, after):
    """Runs a job in a process of its own and kills it once the journal has `after` lines; returns how many it has."""
    journal = job.out / "predictions.jsonl"
    with subprocess.Popen(
        [sys.executable, REPOSITORY / "tools/infer.py", job.config, job.checkpoint, job.folder, "--out", job.out,
         "--workers", "1", "--device", "cpu"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)} | until(journal, after),
    ) as process:  # fmt: skip
        while lines_of(journal) < after and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    return lines_of(journal)


@pytest.fixture
def texts(tmp_path):
    folder = tmp_path / "texts"
    (folder / "sub").mkdir(parents=True)
    for number in range(1, 31):
        (folder / ("sub" if number % 2 else ".") / f"{number:02d}.txt").write_text("word " * number)
    return folder


class TestTexts:
    def test_a_folder_from_the_command_line(self, texts, make_job, run_tool, here):
        (texts / "picture.txt").write_bytes(b"\xff\xd8\xff")
        (texts / "notes.md").write_text("left aside")
        job = make_job("Texts", texts)
        result = run_tool("infer", job.config, job.checkpoint, texts, "--out", job.out)
        assert result.code == 3, result.err
        assert "30 texts done in" in result.out
        assert "texts/s" in result.out
        assert "picture.txt: not a text" in result.out
        assert "1 other files left aside (by their names no texts" in result.out
        assert f"counts:      {job.out / 'counts'}" in result.out
        files = _files(job.out)
        assert files["total.txt"] == b"465\n"
        assert files["counts/sub/07.txt"] == b"7\n"
        assert _records(job.out)[0] == {"file_name": "02.txt", "file_size": 10, "words": 2}
        (job.out / "counts/sub/07.txt").unlink()
        (texts / "04.txt").write_text("changed")
        again = run(job)
        assert (again.finished, again.reused) == (2, 28)
        assert _files(job.out)["total.txt"] == b"462\n"

    def test_options_are_those_of_the_kind(self, texts, make_job, run_tool, capsys):
        job = make_job("Texts", texts)
        refused = run_tool("infer", job.config, job.checkpoint, texts, "--out", job.out, "--tile", 64)
        assert refused.code == 2
        assert "unrecognized arguments: --tile" in refused.err
        shown = run_tool("infer", job.config, "--help").out
        assert "counts/  the words of each text" in shown
        assert "--score-thr" not in shown
        misplaced = run_tool("infer", "--out", job.out, job.config, job.checkpoint, texts)
        assert misplaced.code == 1
        assert "before the options" in misplaced.err

    def test_a_killed_run_ends_like_one_that_is_not(self, texts, make_job, here):
        job = make_job("Texts", texts, seconds=0.1)
        assert 0 < _run_and_kill(job, 4) < 30
        resumed = run(job)
        assert resumed.finished < 30
        assert resumed.finished + resumed.reused == 30
        whole = make_job("Texts", texts, "whole", seconds=0.1)
        run(whole)
        assert _files(job.out) == _files(whole.out)

    def test_an_interrupted_run_leaves_a_page_of_what_is_done(self, texts, make_job, here, monkeypatch):
        job, whole = make_job("Texts", texts), make_job("Texts", texts, "whole")
        run(whole)
        predict, batches = WordCounter.predict, []

        def interrupted(counter, batch):
            if len(batches) == 3:
                raise KeyboardInterrupt
            batches.append(batch)
            return predict(counter, batch)

        with monkeypatch.context() as patched:
            patched.setattr(WordCounter, "predict", interrupted)
            patched.setattr(WriteQueue, "finished", WriteQueue.rest)
            with pytest.raises(KeyboardInterrupt):
                run(job)
        done = len(_records(job.out))
        assert 0 < done < 30
        assert f'"pending":{30 - done}' in (job.out / "index.html").read_text()
        run(job)
        assert _files(job.out) == _files(whole.out)

    def test_no_page(self, texts, make_job, here):
        job = make_job("Texts", texts)
        run(job)
        assert "index.html" in _files(job.out)
        report = run(Job(**{**vars(job), "page": False}))
        assert report.reused == 30
        assert sorted(name for name in _files(job.out) if not name.startswith("counts/")) == [
            "predictions.jsonl", "run.json", "skipped.json", "total.txt",
        ]  # fmt: skip
        assert "index.html" not in report.text()

    def test_a_fresh_start_leaves_nothing(self, texts, make_job, here):
        job = make_job("Texts", texts)
        run(job)
        for number in range(2, 31):
            (texts / ("sub" if number % 2 else ".") / f"{number:02d}.txt").unlink()
        run(Job(**{**vars(job), "overwrite": True}))
        assert sorted(_files(job.out)) == [
            "counts/sub/01.txt", "index.html", "page/records/00000.js", "predictions.jsonl", "run.json", "skipped.json",
            "total.txt",
        ]  # fmt: skip


PAGES = {"ann": 4, "bob": 12}


@pytest.fixture
def diaries(tmp_path):
    folder = tmp_path / "diaries"
    for diary, pages in PAGES.items():
        (folder / diary).mkdir(parents=True)
        for page in range(1, pages + 1):
            (folder / diary / f"{page}.txt").write_text("word " * page)
    return folder


@pytest.fixture
def steps(monkeypatch):
    """The pages that the model is given, from the last run on; None stands for a fresh start."""
    taken = []
    begin, step = Historian.begin, Historian.step
    monkeypatch.setattr(Historian, "begin", lambda self, sources: (taken.append(None), begin(self, sources))[1])
    monkeypatch.setattr(Historian, "step", lambda self, prepared: (taken.append(prepared[0]), step(self, prepared))[1])
    return taken


@pytest.mark.usefixtures("here")
class TestDiaries:
    def _interrupted(self, job, steps, page):
        """Runs a job until the model is given this page of the second diary; those before are written by then."""
        step = Historian.step

        def stop(self, prepared):
            if prepared[0] == page and steps.count(None) == 2:
                raise KeyboardInterrupt
            return step(self, prepared)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Historian, "step", stop)
            patch.setattr(WriteQueue, "finished", WriteQueue.rest)
            with pytest.raises(KeyboardInterrupt):
                run(job)
        steps.clear()

    def test_pages_come_in_order_and_build_on_each_other(self, diaries, make_job):
        job = make_job("Diaries", diaries)
        report = run(job)
        assert report.finished == 16
        records = _records(job.out)
        sums = [page * (page + 1) // 2 for pages in PAGES.values() for page in range(1, pages + 1)]
        assert [record["words"] for record in records] == sums
        line = {"file_name": "bob/2.txt", "file_size": 10, "words": 3, "missed": 0}
        assert records[5] == line | {"sequence": "bob", "follows": "bob/1.txt"}
        files = _files(job.out)
        assert files["diaries/ann.txt"] == b"ann/1.txt 1\nann/2.txt 3\nann/3.txt 6\nann/4.txt 10\n"
        assert sorted(files) == [
            "diaries/ann.txt", "diaries/bob.txt", "index.html", "page/records/00000.js", "predictions.jsonl",
            "run.json", "skipped.json",
        ]  # fmt: skip

    def test_an_interrupted_sequence_goes_on_where_it_stopped(self, diaries, make_job, steps):
        job = make_job("Diaries", diaries)
        self._interrupted(job, steps, 8)
        assert 4 < len(_records(job.out)) < 16
        report = run(job)
        # From a kept state, not from the first page; what came after the state is run again.
        assert steps[-1] == 12
        assert None not in steps
        assert steps == list(range(steps[0], 13))
        assert report.finished + report.reused == 16
        whole = make_job("Diaries", diaries, "whole")
        run(whole)
        assert _files(job.out) == _files(whole.out)
        steps.clear()
        assert run(job).reused == 16
        assert not steps

    @pytest.mark.parametrize("trouble", ["cannot be kept", "damaged", "another first page"])
    def test_else_it_starts_again_and_that_is_said(self, diaries, make_job, steps, capsys, trouble):
        keeps = trouble != "cannot be kept"
        job = make_job("Diaries", diaries, keeps=keeps)
        self._interrupted(job, steps, 8)
        reason, first = "the state in which it stopped was not kept", 1
        if trouble == "damaged":
            (state,) = (job.out / "state").iterdir()
            state.write_bytes(state.read_bytes()[:100])
        elif trouble == "another first page":
            (diaries / "bob/0.txt").write_text("word")
            reason, first = "it has changed", 0
        capsys.readouterr()
        run(job)
        assert f"sequence bob starts again from its first page: {reason}" in capsys.readouterr().err
        assert steps == [None, *range(first, 13)]
        whole = make_job("Diaries", diaries, "whole", keeps=keeps)
        run(whole)
        assert _files(job.out) == _files(whole.out)

    @pytest.mark.parametrize("change", ["edited", "added", "removed"])
    def test_a_finished_sequence_that_has_changed_is_run_again(self, diaries, make_job, steps, capsys, change):
        job = make_job("Diaries", diaries)
        run(job)
        steps.clear()
        page = diaries / "ann/2.txt"
        if change == "removed":
            page.unlink()
        else:
            (page if change == "edited" else diaries / "ann/9.txt").write_text("one two three")
        run(job)
        reason = "the state in which it stopped was not kept" if change == "added" else "it has changed"
        assert f"sequence ann starts again from its first page: {reason}" in capsys.readouterr().err
        assert steps[0] is None
        assert 12 not in steps  # the other one is as it was
        whole = make_job("Diaries", diaries, "whole")
        run(whole)
        assert _files(job.out) == _files(whole.out)

    def test_a_page_that_cannot_be_read_is_left_out_for_good(self, diaries, make_job, steps):
        (diaries / "ann/2.txt").write_bytes(b"\xff\xfe\xfd")
        job = make_job("Diaries", diaries)
        report = run(job)
        assert report.skipped == {"ann/2.txt": "not a text"}
        assert report.finished == 15
        records = _records(job.out)
        assert [record.get("missed") for record in records[:4]] == [0, None, 1, 0]
        assert records[1]["skipped"] == "not a text"
        assert _files(job.out)["diaries/ann.txt"] == b"ann/1.txt 1\nann/3.txt 4\nann/4.txt 8\n"
        before = _files(job.out)
        steps.clear()
        again = run(job)
        assert (again.finished, again.reused, again.skipped) == (0, 15, report.skipped)
        assert not steps
        assert _files(job.out) == before

    def test_after_a_failure_of_the_model_its_sequence_ends(self, diaries, make_job):
        text = (diaries / "bob/5.txt").read_text()
        (diaries / "bob/5.txt").write_text("illegible")
        job = make_job("Diaries", diaries)
        report = run(job)
        assert report.finished == 8
        assert report.skipped["bob/5.txt"] == "the model fails on it: ValueError: cannot read this"
        assert report.skipped["bob/6.txt"] == "it comes after bob/5.txt, on which the model fails"
        assert len(report.skipped) == 8
        # Nothing of it is final.
        (diaries / "bob/5.txt").write_text(text)
        assert run(job).finished >= 8
        whole = make_job("Diaries", diaries, "whole")
        run(whole)
        assert _files(job.out) == _files(whole.out)

    def test_a_lost_file_about_a_sequence_is_written_again(self, diaries, make_job, steps):
        job = make_job("Diaries", diaries)
        run(job)
        before = _files(job.out)
        (job.out / "diaries/bob.txt").unlink()
        steps.clear()
        run(job)
        assert not steps
        assert _files(job.out) == before

    def test_a_fresh_start_leaves_nothing(self, diaries, make_job):
        job = make_job("Diaries", diaries)
        run(job)
        for page in (diaries / "ann").iterdir():
            page.unlink()
        run(Job(**{**vars(job), "overwrite": True}))
        assert "diaries/ann.txt" not in _files(job.out)


def test_a_killed_sequence_goes_on_where_it_stopped(diaries, make_job, steps, capsys, here):
    job = make_job("Diaries", diaries, seconds=0.1)
    assert 7 <= _run_and_kill(job, 7) < 16
    report = run(job)
    assert report.reused > 0
    assert None not in steps
    assert "starts again" not in capsys.readouterr().err
    whole = make_job("Diaries", diaries, "whole", seconds=0.1)
    run(whole)
    assert _files(job.out) == _files(whole.out)


@pytest.mark.parametrize("declared", ["Texts", {"type": "Nothing"}, {"type": dict}])
def test_an_unknown_kind_is_named(declared):
    with pytest.raises(UserError, match=r"folder_kind is .* known are .*Images"):
        build_kind(Config({"folder_kind": declared}), {})
