"""Data of DN2N: rays of one target view per step, and the source bank of one or several scenes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor

from perception.studio.datamanager import RayDataManager, RayDataManagerConfig
from perception.studio.depth_range import DepthRange
from perception.studio.images import ImageStore
from perception.studio.parsers import SceneReader
from perception.studio.samplers import PixelSampler, SamplerConfig, generator
from perception.studio.scene_checks import SceneReport, check_scene
from projects.dn2n.bank import LLFF_RANGE, SceneSpan, SourceBank
from projects.dn2n.scenes_dataparser import Scenes, ScenesDataParserConfig


@dataclass(frozen=True)
class OneViewSamplerConfig(SamplerConfig):
    """Pixels of one training view per step, with replacement; each view equally often."""

    def setup(self, images: ImageStore, *, seed: int, start: int = 0, pixels: Tensor | None = None) -> OneViewSampler:
        return OneViewSampler(images, seed, start, pixels)


class OneViewSampler(PixelSampler):
    """See :class:`OneViewSamplerConfig`."""

    def __init__(self, images: ImageStore, seed: int, start: int = 0, pixels: Tensor | None = None):
        super().__init__(seed, start)
        self._images, self._pixels = images, pixels

    def draw(self, step: int, rays: int) -> Tensor:
        random = generator(self.seed, step)
        view = self._images.views[torch.randint(len(self._images.views), (1,), generator=random)]
        own = self._images.pixels_of(view)
        if self._pixels is not None:
            own = own[torch.isin(own, self._pixels)]
        return own[torch.randint(len(own), (rays,), generator=random)]


@dataclass
class DN2NDataManagerConfig(RayDataManagerConfig):
    """Data of DN2N."""

    _target: type = field(default_factory=lambda: DN2NDataManager)
    dataparser: ScenesDataParserConfig = field(default_factory=ScenesDataParserConfig)
    train_num_rays_per_batch: int = 256
    """Rays per training step, all of one target view; the neighbouring view has as many."""
    sampler: SamplerConfig = OneViewSamplerConfig()
    """Which pixels a step trains on."""


class DN2NDataManager(RayDataManager):
    """Adds the ``bank`` of source views to the data. Where the parser reads several scenes, each is looked at alone."""

    config: DN2NDataManagerConfig
    bank: SourceBank

    def setup_train(self) -> None:
        """The training views, and their bank."""
        super().setup_train()
        self.bank = SourceBank(self.pixels, self.train_dataset.cameras, self.background, self._spans())

    def find_offline_edits(self) -> None:
        """Let training draw from the edits that lie beside scenes."""
        from projects.dn2n.offline import read_offline_edits

        for number, (span, report) in enumerate(zip(self.bank.scenes, self._reports.values())):
            files = self.train_dataset.image_filenames[span.start : span.end]
            found = read_offline_edits(report.folder, files, self.bank.store.sizes[span.start])
            if found is not None:
                self.bank.offline[number] = found
                CONSOLE.log(
                    f"{span.name}: {len(found.prompts)} edits made beforehand, {found.count} images of "
                    f"{len(found.prompts) * len(files)}; views that they lack are perturbed instead"
                )

    def _check(self) -> SceneReport:
        parser = self.dataparser.parser
        if not isinstance(parser, Scenes):
            report = super()._check()
            self._reports = {Path(report.folder).name: report}
            return report
        self._reports = {name: self._check_one(reader) for name, reader in parser.readers.items()}
        near, far = zip(*(self._range(report) for report in self._reports.values()))
        together = SceneReport(Path(parser.config.data))
        together.depth_range = DepthRange(min(near), max(far), "those of all scenes")
        return together

    def _check_one(self, reader: SceneReader) -> SceneReport:
        report = check_scene(
            reader,
            ("train", self.test_split),
            self.config.scene_use,
            background=self.background,
            allow_opaque=self.config.allow_opaque,
            read_images=self.test_mode != "inference",
        )
        report.findings.raise_errors()
        if self.test_mode == "val":
            report.say()
        return report

    def _range(self, report: SceneReport) -> tuple[float, float]:
        """Near and far of a scene as IBRNet takes them: those of LLFF scenes with a margin."""
        near, far = report.depth_range[:2]
        if "llff" in report.splits["train"].metadata and self.config.scene_use.near is None:
            near, far = near * LLFF_RANGE[0], far * LLFF_RANGE[1]
        return near, far

    def _spans(self) -> list[SceneSpan]:
        spans, start = [], 0
        for name, report in self._reports.items():
            end = start + len(report.splits["train"].image_filenames)
            spans.append(SceneSpan(name, start, end, *self._range(report)))
            start = end
        return spans
