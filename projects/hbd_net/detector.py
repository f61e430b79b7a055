"""HBD-Net for mmdet: one detector for native images, another for reduced ones, and fusion of the one's maps with the
other's."""

from __future__ import annotations

import copy
from abc import ABCMeta, abstractmethod
from collections.abc import Sequence
from typing import Any

from mmdet.models.detectors import BaseDetector, SingleStageDetector, TwoStageDetector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor

from .context import ContextBatch, patches_with_context, stacked
from .fusion import InterLevelFusion

Maps = Sequence[Tensor]
Samples = list[DetDataSample]
LOCAL, GLOBAL = "", "global_"
"""In front of the names of a branch's parts: of the detector of native images, of that of reduced ones."""


class TwoBranchDetector(BaseDetector, metaclass=ABCMeta):
    """Two detectors of equal parts, without shared weights, that act as one.

    In training every patch goes through the first one, and what is around it on reduced images (``context``) through
    the second, whose losses have ``_global`` behind their names. In testing ``factor`` in a sample's metainfo says how
    much its image was reduced, and so which of the two detects: the first without it or with 1, else the second.

    Args:
        parts: settings by name, of the detector of native images.
        global_parts: the same of reduced images; parts that are None are as those of native images.
        data_preprocessor, init_cfg: as in any detector of mmdet.
        settings: ``train_cfg`` and ``test_cfg``, of both.
    """

    PARTS: tuple[str, ...]
    fuses = False
    """Whether what is around a patch changes what is found in it."""

    def __init__(
        self,
        parts: dict[str, dict],
        global_parts: dict[str, dict | None],
        data_preprocessor: dict | None,
        init_cfg: dict | list[dict] | None,
        **settings: dict | None,
    ):
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        reduced = {name: parts[name] if global_parts[name] is None else global_parts[name] for name in self.PARTS}
        for prefix, chosen in ((LOCAL, parts), (GLOBAL, reduced)):
            # mmdet's own detectors know how to build their parts; they change the settings that they are given.
            built = self._whole(**copy.deepcopy(chosen), **copy.deepcopy(settings))
            for name in self.PARTS:
                self.add_module(f"{prefix}{name}", getattr(built, name))
        self.train_cfg, self.test_cfg = settings["train_cfg"], settings["test_cfg"]

    @staticmethod
    @abstractmethod
    def _whole(**settings: Any) -> BaseDetector:
        """A detector of mmdet with one branch's parts."""

    @abstractmethod
    def _losses(self, prefix: str, maps: Maps, samples: Samples) -> dict[str, Any]:
        """Of a branch's heads on its maps."""

    @abstractmethod
    def _detect(self, prefix: str, maps: Maps, samples: Samples, rescale: bool) -> list[InstanceData]:
        """What a branch's heads find."""

    @abstractmethod
    def _raw(self, prefix: str, maps: Maps, samples: Samples) -> tuple:
        """Output of a branch's heads."""

    def _fused(self, maps: Maps, context_maps: Maps, context: ContextBatch) -> Maps:
        """Maps of patches with what their context adds, of a detector that fuses."""
        raise NotImplementedError

    def features(self, inputs: Tensor, prefix: str = LOCAL) -> Maps:
        """Maps of images (N, 3, H, W), from fine to coarse, by the branch with that prefix."""
        return getattr(self, f"{prefix}neck")(getattr(self, f"{prefix}backbone")(inputs))

    def extract_feat(self, batch_inputs: Tensor) -> Maps:
        """Maps of native images (N, 3, H, W)."""
        return self.features(batch_inputs)

    def forward(
        self,
        inputs: Tensor,
        data_samples: Samples | None = None,
        mode: str = "tensor",
        context: ContextBatch | None = None,
    ) -> Any:
        """As in any detector of mmdet, with what is around the patches.

        Args:
            inputs: patches (N, 3, H, W).
            data_samples: of each.
            mode: "loss", "predict" or "tensor".
            context: around them; without it patches are detected by themselves.

        Raises:
            ValueError: another mode.
        """
        if mode == "loss":
            return self.loss(inputs, data_samples, context)
        if mode == "predict":
            return self.predict(inputs, data_samples, context=context)
        if mode == "tensor":
            return self._forward(inputs, data_samples)
        raise ValueError(f"mode must be loss, predict or tensor, not {mode!r}")

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: Samples, context: ContextBatch | None = None
    ) -> dict[str, Any]:
        """Losses of both branches by name; those of the second are 0 where no patch has context."""
        maps = self.features(batch_inputs)
        around: dict[str, Any] = {}
        if context is not None:
            context_maps = self.features(context.inputs, GLOBAL)
            if self.fuses:
                maps = self._fused(maps, context_maps, context)
            around = self._losses(GLOBAL, context_maps, context.samples)
        losses = self._losses(LOCAL, maps, batch_data_samples)
        nothing = {name: batch_inputs.new_zeros(()) for name in losses if "loss" in name}
        return losses | {f"{name}_global": value for name, value in (nothing | around).items()}

    def predict(
        self,
        batch_inputs: Tensor,
        batch_data_samples: Samples,
        rescale: bool = True,
        context: ContextBatch | None = None,
    ) -> Samples:
        """Detections in pixels of each patch, native or reduced.

        Raises:
            ValueError: there is context, but no fusion.
        """
        if context is not None and not self.fuses:
            raise ValueError("this model has no fusion: give it patches without context")
        reduced = [sample.metainfo.get("factor", 1) > 1 for sample in batch_data_samples]
        results: dict[int, InstanceData] = {}
        for prefix, wanted in ((LOCAL, False), (GLOBAL, True)):
            numbers = [k for k, is_reduced in enumerate(reduced) if is_reduced is wanted]
            if not numbers:
                continue
            maps = self.features(batch_inputs[numbers], prefix)
            if context is not None and not wanted:
                maps = self._fused(maps, self.features(context.inputs, GLOBAL), _renumbered(context, numbers))
            samples = [batch_data_samples[k] for k in numbers]
            results.update(zip(numbers, self._detect(prefix, maps, samples, rescale), strict=True))
        return self.add_pred_to_datasample(batch_data_samples, [results[k] for k in range(len(reduced))])

    def _forward(self, batch_inputs: Tensor, batch_data_samples: Samples | None = None) -> tuple:
        """Output of the heads of native images on patches without context."""
        return self._raw(LOCAL, self.features(batch_inputs), batch_data_samples)


@MODELS.register_module()
class HBDNet(TwoBranchDetector):
    """Two Oriented R-CNNs, the first of which works on maps that are fused with those of the second.

    Weights have the released names: ``backbone``, ``neck``, ``rpn_head``, ``roi_head``, the same with ``global_`` in
    front, and ``fusion_convs``. The released ``RotatedTwoStageDetectorImgFPN2`` computes the same where it works: it
    never fuses, neither in training nor in testing.

    Args:
        backbone, neck, rpn_head, roi_head: of native images, as in mmdet's two-stage detectors.
        global_backbone, global_neck, global_rpn_head, global_roi_head: of reduced images; None: the same settings.
        fusion: of :class:`InterLevelFusion` (``channels``, ``most``); None for two detectors that do not know of each
            other, which is what detectors make that were trained one after the other.
        train_cfg, test_cfg, data_preprocessor, init_cfg: as in mmdet's two-stage detectors; the preprocessor has to be
            :class:`ContextPreprocessor`, unless there is never any context.
    """

    PARTS = ("backbone", "neck", "rpn_head", "roi_head")
    _whole = staticmethod(TwoStageDetector)

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        rpn_head: dict,
        roi_head: dict,
        global_backbone: dict | None = None,
        global_neck: dict | None = None,
        global_rpn_head: dict | None = None,
        global_roi_head: dict | None = None,
        fusion: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(
            dict(zip(self.PARTS, (backbone, neck, rpn_head, roi_head))),
            dict(zip(self.PARTS, (global_backbone, global_neck, global_rpn_head, global_roi_head))),
            data_preprocessor,
            init_cfg,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
        )
        self.fuses = fusion is not None
        if fusion is not None:
            self.fusion_convs = InterLevelFusion(**fusion)

    def _fused(self, maps: Maps, context_maps: Maps, context: ContextBatch) -> Maps:
        crops_of = patches_with_context(context)
        fused = []
        for patch in range(len(maps[0])):
            own = [level[patch : patch + 1] for level in maps]
            crops = crops_of.get(patch)
            if crops:
                inside, factors = ([values[k] for k in crops] for values in (context.inside, context.factors))
                own = self.fusion_convs(own, [level[crops] for level in context_maps], inside, factors)
            fused.append(own)
        return stacked(fused)

    def _losses(self, prefix: str, maps: Maps, samples: Samples) -> dict[str, Any]:
        rpn_head, roi_head = (getattr(self, f"{prefix}{name}") for name in ("rpn_head", "roi_head"))
        unclassed = copy.deepcopy(samples)
        for sample in unclassed:
            sample.gt_instances.labels.zero_()
        proposals = self.train_cfg.get("rpn_proposal", self.test_cfg["rpn"])
        losses, regions = rpn_head.loss_and_predict(maps, unclassed, proposal_cfg=proposals)
        # As in mmdet: heads of single-stage detectors may propose, too, and name their losses like the second stage.
        named = {name if "rpn" in name else f"rpn_{name}": value for name, value in losses.items()}
        return named | roi_head.loss(maps, regions, samples)

    def _detect(self, prefix: str, maps: Maps, samples: Samples, rescale: bool) -> list[InstanceData]:
        rpn_head, roi_head = (getattr(self, f"{prefix}{name}") for name in ("rpn_head", "roi_head"))
        regions = rpn_head.predict(maps, samples, rescale=False)
        return roi_head.predict(maps, regions, samples, rescale=rescale)

    def _raw(self, prefix: str, maps: Maps, samples: Samples) -> tuple:
        regions = getattr(self, f"{prefix}rpn_head").predict(maps, samples, rescale=False)
        return getattr(self, f"{prefix}roi_head").forward(maps, regions, samples)


@MODELS.register_module()
class HBDNetSingleStage(TwoBranchDetector):
    """The same with single-stage detectors (Rotated FCOS), without fusion.

    The released ``RotatedSingleStageDetectorImgFPN`` trains the detector of native images alone; here the other one
    learns from the context.

    Args:
        backbone, neck, bbox_head: of native images, as in mmdet's single-stage detectors.
        global_backbone, global_neck, global_bbox_head: of reduced images; None: the same settings.
        train_cfg, test_cfg, data_preprocessor, init_cfg: as in mmdet's single-stage detectors.
    """

    PARTS = ("backbone", "neck", "bbox_head")
    _whole = staticmethod(SingleStageDetector)

    def __init__(
        self,
        backbone: dict,
        neck: dict,
        bbox_head: dict,
        global_backbone: dict | None = None,
        global_neck: dict | None = None,
        global_bbox_head: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | list[dict] | None = None,
    ):
        super().__init__(
            dict(zip(self.PARTS, (backbone, neck, bbox_head))),
            dict(zip(self.PARTS, (global_backbone, global_neck, global_bbox_head))),
            data_preprocessor,
            init_cfg,
            train_cfg=train_cfg,
            test_cfg=test_cfg,
        )

    def _losses(self, prefix: str, maps: Maps, samples: Samples) -> dict[str, Any]:
        return getattr(self, f"{prefix}bbox_head").loss(maps, samples)

    def _detect(self, prefix: str, maps: Maps, samples: Samples, rescale: bool) -> list[InstanceData]:
        return getattr(self, f"{prefix}bbox_head").predict(maps, samples, rescale=rescale)

    def _raw(self, prefix: str, maps: Maps, samples: Samples | None) -> tuple:
        return getattr(self, f"{prefix}bbox_head").forward(maps)


def _renumbered(context: ContextBatch, numbers: Sequence[int]) -> ContextBatch:
    """The same for a part of the batch; context of patches that are not in it is left unused."""
    places = {number: place for place, number in enumerate(numbers)}
    patches = [places.get(patch, -1) for patch in context.patches]
    return ContextBatch(context.inputs, context.samples, patches, context.inside, context.factors)
