"""A model over a folder of images: scan, decode, batch, predict, draw, write, each beside the others.

Worker processes decode; one thread applies the test pipeline and forms batches; the calling thread runs the model; a
few threads draw and write. A run that was interrupted continues where it stopped and ends with the same files.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from perception.engine.checkpoint import checkpoint_file, load_checkpoint_file
from perception.engine.config import load_config
from perception.engine.errors import UserError
from perception.inference.attempts import Attempts
from perception.inference.batching import Image, batches, prefetch
from perception.inference.decoding import Decoded, Deferred, InputSize, Refused, decode
from perception.inference.detector import Detector, classes_and_palette, identity
from perception.inference.drawing import draw, draw_label_map, draw_segments
from perception.inference.geojson import feature_collection
from perception.inference.output import GEOJSON_SUFFIXES, LABEL_MAPS, PANOPTIC, PICTURES, RESULTS, SKIPPED, OutputFolder
from perception.inference.pool import WorkerPool
from perception.inference.progress import Progress
from perception.inference.results import Detections, Found, LabelMap, Segments, as_record, at_size
from perception.inference.scan import Scan, Source, scan
from perception.inference.tiled import TiledRun
from perception.inference.tiles import Tiling

# Pixels that may wait for being drawn and written before the model has to wait.
_UNWRITTEN_BYTES = 192 * 2**20
_WRITERS = 2
# Bytes of a file's name that leave room, of 255, for what results add to it.
_LONGEST_NAME = 235
# Skipped files that the closing summary names.
_LISTED = 20


@dataclass(frozen=True)
class Job:
    """What to run on what.

    Args:
        config: an MMEngine config file of a detector or segmenter.
        checkpoint: its weights.
        folder: a folder of images, or one image.
        out: where results go.
        batch_size: images a batch, as far as their shapes agree; or tiles.
        workers: processes that decode; tiles are read by a thread.
        device: a torch device; by default CUDA where there is some, else the CPU.
        score_thr: detections below it are neither written nor drawn.
        patterns: shell patterns of the files to take; none means everything with an image's suffix.
        pictures: draw pictures.
        overwrite: replace what is in `out`, instead of continuing it.
        tiling: cut images into tiles, for those that are larger than what the model takes.
        merge_iou: overlap above which detections of two tiles are one object; by default 0.1 for rotated boxes, as in
            DOTA's evaluation, and 0.5 for others.
        cfg_options: settings of the config to change, by dotted name.
    """

    config: str
    checkpoint: Path
    folder: Path
    out: Path
    batch_size: int = 4
    workers: int = 2
    device: str | None = None
    score_thr: float = 0.3
    patterns: Sequence[str] = ()
    pictures: bool = True
    overwrite: bool = False
    tiling: Tiling | None = None
    merge_iou: float | None = None
    cfg_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """What a run did: images finished now and by earlier runs, skipped files with reasons, and the time of the loop."""

    job: Job
    finished: int
    reused: int
    skipped: dict[str, str]
    ignored: int
    seconds: float

    def text(self) -> str:
        """The closing words for a user."""
        done = f"{self.finished} images done in {self.seconds:.1f} s"
        if self.finished:
            done += f" ({self.finished / self.seconds:.2f} images/s)"
        if self.reused:
            done += f", {self.reused} were done before"
        lines = [done]
        if self.skipped:
            lines.append(f"{len(self.skipped)} skipped:")
            lines += [f"  {name}: {self.skipped[name]}" for name in sorted(self.skipped)[:_LISTED]]
            if len(self.skipped) > _LISTED:
                lines.append(f"  ... and {len(self.skipped) - _LISTED} more, all in {self.job.out / SKIPPED}")
        if self.ignored:
            lines.append(f"{self.ignored} other files left aside (by their names no images that were asked for)")
        lines.append(f"predictions: {self.job.out / RESULTS}")
        for kind, folder in (("label maps", LABEL_MAPS), ("segments", PANOPTIC)):
            if (self.job.out / folder).is_dir():
                lines.append(f"{kind + ':':<12} {self.job.out / folder}")
        if self.job.pictures:
            lines.append(f"pictures:    {self.job.out / PICTURES}")
        return "\n".join(lines)


def run(job: Job) -> Summary:
    """Does a job.

    Raises:
        UserError: something in the job has to be put right first.
    """
    cfg = load_config(job.config, job.cfg_options)
    if not cfg.get("model"):
        raise UserError(f"config {job.config} describes no model")
    settings = _settings(job, cfg)
    device = _device(job.device)
    found = _scan(job)
    with closing(OutputFolder(job.out, settings, found, job.pictures, job.overwrite)) as output:
        pending = sum(not output.has(source) for source in found.sources)
        skipped = dict(found.skipped)
        started = time.perf_counter()
        if pending and job.tiling is not None:
            detector = Detector(cfg, job.checkpoint, device)
            classes = detector.classes
            started = time.perf_counter()
            attempts = Attempts(detector, job.score_thr)
            tiled = TiledRun(detector, attempts, output, job.tiling, job.batch_size, job.merge_iou, job.pictures)
            skipped |= tiled.go(found.sources)
        elif pending:
            with closing(WorkerPool(job.workers)) as pool:
                detector = Detector(cfg, job.checkpoint, device)
                classes = detector.classes
                started = time.perf_counter()
                skipped |= _Run(job, found.sources, output, detector, pool).go()
        else:
            classes, _ = classes_and_palette(load_checkpoint_file(job.checkpoint), cfg)
        seconds = time.perf_counter() - started
        output.finish(classes, skipped)
        failed = len(skipped) - len(found.skipped)
        return Summary(job, pending - failed, len(found.sources) - pending, skipped, len(found.ignored), seconds)


class _Run:
    """The loop over the images of one job."""

    def __init__(
        self, job: Job, sources: Sequence[Source], output: OutputFolder, detector: Detector, pool: WorkerPool
    ) -> None:
        self._job, self._output, self._detector, self._pool = job, output, detector, pool
        self._attempts = Attempts(detector, job.score_thr)
        self._skipped: dict[str, str] = {}
        # Shapes find their partners within a chunk; it is also what an interrupted run has to form again.
        size = max(64, 8 * job.batch_size)
        chunks = [sources[start : start + size] for start in range(0, len(sources), size)]
        self._chunks = [chunk for chunk in chunks if not all(map(output.has, chunk))]
        self._progress = Progress(len(sources), sum(map(output.has, sources)))

    def go(self) -> dict[str, str]:
        """Runs everything; returns the files that were skipped, with reasons."""
        unwritten: deque[tuple[int, Future[None]]] = deque()
        held = 0
        formed = batches(self._decoded(), self._prepare, self._job.batch_size, self._skip)
        with (
            closing(self._progress),
            ThreadPoolExecutor(_WRITERS, "writer") as writers,
            closing(prefetch(formed, 1)) as ready,
        ):
            for batch in ready:
                # A batch of which an earlier run finished some is run whole, so that its numbers come out the same.
                if all(self._output.has(image.source) for image in batch):
                    continue
                for image, found in zip(batch, self._attempts.predict([image.prepared for image in batch])):
                    if self._output.has(image.source):
                        continue
                    if isinstance(found, Refused):
                        self._skip(image.source, found.reason)
                        continue
                    unwritten.append((image.decoded.pixels.nbytes, writers.submit(self._write, image, found)))
                    held += image.decoded.pixels.nbytes
                while unwritten and (unwritten[0][1].done() or held > _UNWRITTEN_BYTES):
                    size, future = unwritten.popleft()
                    future.result()
                    held -= size
                    self._progress.add()
            for _, future in unwritten:
                future.result()
                self._progress.add()
        return self._skipped

    def _decoded(self) -> Iterator[Iterable[tuple[Source, Decoded | Refused]]]:
        """Decoded images by chunk, while the processes are already busy with what comes next."""
        size = self._detector.input_size
        sources = (source for chunk in self._chunks for source in chunk)
        ahead = self._job.batch_size + 2 * self._job.workers
        results = self._pool.imap(partial(decode, input_size=size, allow_large=False), sources, ahead, _died)
        for chunk in self._chunks:
            yield (self._undeferred(*next(results), size) for _ in chunk)

    def _undeferred(
        self, source: Source, result: Decoded | Refused | Deferred, size: InputSize | None
    ) -> tuple[Source, Decoded | Refused]:
        if isinstance(result, Deferred):
            result = self._pool.alone(partial(decode, input_size=size, allow_large=True), source, _died)
        return source, result

    def _prepare(self, source: Source, decoded: Decoded) -> Any:
        return self._detector.prepare(decoded.pixels, source.name)

    def _write(self, image: Image, found: Found) -> None:
        decoded, source = image.decoded, image.source
        width, height, factor = decoded.width, decoded.height, decoded.factor
        classes, palette = self._detector.classes, self._detector.palette
        record = as_record(source.name, source.file_size, width, height, factor, found, classes)
        picture, geojson = None, None
        if isinstance(found, LabelMap):
            with self._output.label_map(source.name, width, height, palette) as file:
                file.write(at_size(found.labels, width, height, factor))
        elif isinstance(found, Segments):
            self._output.panoptic(source.name, at_size(found.ids, width, height, factor))
        elif found.rotated:
            geojson = {GEOJSON_SUFFIXES[0]: feature_collection(found, factor, classes)}
        if self._job.pictures:
            drawing = {Detections: draw, LabelMap: draw_label_map, Segments: draw_segments}[type(found)]
            picture = drawing(decoded.pixels, found, classes, palette)
        self._output.add(record, picture, geojson)

    def _skip(self, source: Source, reason: str) -> None:
        self._skipped[source.name] = reason
        self._progress.add()


def _died(source: Source) -> Refused:
    return Refused("the process that decoded it died (killed for memory, or crashed by the file)")


def _device(name: str | None) -> torch.device:
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name} cannot be used: {str(error).splitlines()[0]}") from error
    return device


def _scan(job: Job) -> Scan:
    folder, out = job.folder.resolve(), job.out.resolve()
    if not folder.exists():
        raise UserError(f"folder {job.folder} does not exist")
    if folder == out or out in folder.parents:
        raise UserError(f"--out {job.out} contains the images in {job.folder}; choose a folder of its own")
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {job.out} is a file; name a folder")
    found = scan(job.folder, job.patterns, out)
    for source in [source for source in found.sources if len(os.fsencode(source.path.name)) > _LONGEST_NAME]:
        found.sources.remove(source)
        found.skipped[source.name] = f"its name has more than {_LONGEST_NAME} bytes: no room for results' names"
    if not found.sources and not found.skipped:
        wanted = f"files that match {' '.join(job.patterns)}" if job.patterns else "images"
        raise UserError(f"folder {job.folder} holds no {wanted} ({len(found.ignored)} other files)")
    return found


def _settings(job: Job, cfg: Config) -> dict[str, Any]:
    """What decides a run's results, as it is kept in OUT/run.json."""
    text = json.dumps(identity(cfg), sort_keys=True, default=_named)
    return {
        "config": job.config,
        "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "checkpoint": str(job.checkpoint),
        "checkpoint_sha256": _sha256(checkpoint_file(job.checkpoint)),
        "folder": str(job.folder.resolve()),
        "patterns": list(job.patterns),
        "score_thr": job.score_thr,
        "tile": job.tiling and job.tiling.size,
        "overlap": job.tiling and job.tiling.overlap,
        "merge_iou": job.merge_iou,
    }


def _named(value: Any) -> str:
    """A config's value that is not JSON: a class or function by its name, anything else by its text."""
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    return repr(value)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
