"""A radiance field of a video as a nerfstudio model: the field of one frame, its pilot, and the stream behind them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.utils.rich_utils import CONSOLE
from torch import Tensor
from torch.nn import Parameter

from perception.geometry.rays import NDC
from perception.ops.march_rays import March
from perception.radiance.metrics import psnr
from perception.radiance.sparse_grid import SparseGrid
from perception.studio.density import DensitySpace
from perception.studio.errors import SceneError
from perception.studio.model import RadianceModel, RadianceModelConfig
from perception.studio.scene_checks import SceneUse
from perception.studio.stages import Stage
from projects.streamrf.delta import BaseModel, FieldState, FrameDelta, Rendering
from projects.streamrf.field import state_of
from projects.streamrf.rendering import march_of, render_rays
from projects.streamrf.settings import BaseSettings, FrameSettings, check_base, check_frames, first_pilot
from projects.streamrf.stages import make_stages

if TYPE_CHECKING:
    from perception.studio.training_run import TrainingRun
    from projects.streamrf.container import StreamWriter
    from projects.streamrf.guidance import PilotChange

PILOT = FrameSettings(
    iters=1000,
    lr_sigma=0.3,
    lr_sh_final=1e-4,
    lr_steps=1000,
    keep_threshold=1.0,
    prune_threshold=0.1,
    dilate_before=1,
    dilate_after=1,
)
FULL = FrameSettings(iters=500, stop_thresh=1e-7)
STREAM, LOG = "stream", "frames.jsonl"
MUCH = 0.15
"""Share of the pixels that change visibly from a frame to the next beyond which a warning says so. The built-in video
has 0.09 of them; every third frame of it 0.16, every sixth 0.19."""
DOWNWARDS = (1.0, -1.0, 1.0)  # the y axis of grids


@dataclass
class StreamRFModelConfig(RadianceModelConfig):
    """StreamRF; defaults are those of Meet Room."""

    _target: type = field(default_factory=lambda: StreamRFModel)
    frames: int = 0
    """Frames of the stream, the first one included; 0 for all that the video has."""
    base: BaseSettings = field(default_factory=BaseSettings)
    """The field of the first frame."""
    pilot: FrameSettings = field(default_factory=lambda: PILOT)
    """The pilot, on each later frame; on the first one it trains ten times as long."""
    full: FrameSettings = field(default_factory=lambda: FULL)
    """The field, on each later frame."""
    use_pilot: bool = True
    """Lead the field by a pilot of a lower resolution."""
    band: bool = True
    """Change the field in a narrow band around its surface alone."""
    pilot_factor: float = 2.0
    """How many times fewer voxels the pilot has along each axis."""
    offset: float = 250.0
    """Pixels around the image that the grid reaches beyond the first camera's view."""
    background_brightness: float = 0.5
    """Behind the field."""
    density_thresh: float = 5.0
    """Voxels of lower density are dropped, but for layers around the others."""
    sparsity: float = 1e-12
    """Weight of the Cauchy loss of densities."""
    tv_share: float = 0.01
    """Share of the grid's voxels whose total variation each step looks at."""
    legacy_tv: bool = False
    """Total variation as the published kernels have it at the end of the grid."""
    half: bool = True
    """Code in half precision, and train on from what is coded (fp16_loop); densities of the first field keep single
    precision, as in the released files."""
    sh_step: float = 0.0
    """Round coefficients to multiples of this within the loop of coding, which makes files smaller; 0 for no rounding
    beyond half precision, as in the paper."""
    key_every: int = 0
    """Frames after which the stream holds a whole field again, for access without those before it; 0 for none."""
    checkpoint_every: int = 1
    """Frames after which a checkpoint is written; a run that is killed goes on from there."""

    free_on_resume: ClassVar[frozenset[str]] = RadianceModelConfig.free_on_resume | {"frames", "checkpoint_every"}
    sizes: ClassVar[frozenset[str]] = frozenset({"base.resolutions"})

    def stages(self) -> list[Stage]:
        pilot = self.pilot if self.use_pilot else None
        return make_stages(max(self.frames, 1), self.base, pilot, self.full, first_pilot(self.pilot))

    def scene_use(self) -> SceneUse:
        return SceneUse(ndc=True)


class StreamRFModel(RadianceModel):
    """Trains and shows the field of one frame.

    Buffers ``frame``, the number of the frame that the field is of, and ``ndc``, focal lengths and size (pixels) of the
    camera whose normalised device coordinates the field lives in.
    """

    config: StreamRFModelConfig
    frame: Tensor
    ndc: Tensor

    def populate_modules(self) -> None:
        super().populate_modules()
        config = self.config
        check_base(config.base)
        check_frames("pilot", config.pilot)
        check_frames("full", config.full)
        for name, least in (("checkpoint_every", 1), ("key_every", 0), ("frames", 0)):
            if getattr(config, name) < least:
                raise SceneError(f"{name.replace('_', '-')} must be at least {least}, not {getattr(config, name)}")
        if config.pilot_factor < 1:
            raise SceneError(f"pilot-factor must be at least 1, not {config.pilot_factor}")
        nothing = torch.zeros(1, 1, 1, dtype=torch.bool)
        self.grid = SparseGrid(nothing, torch.ones(3))
        self.pilot = SparseGrid(nothing, torch.ones(3))
        self.register_buffer("frame", torch.tensor(0))
        self.register_buffer("ndc", torch.ones(4))
        # Of the frame in flight; a checkpoint is written between frames.
        self.before: FieldState | None = None
        self.change: PilotChange | None = None
        self.may_change: Tensor | None = None
        self.pilot_seconds = 0.0
        self._warned = False  # of frames that differ much
        self._writer: StreamWriter | None = None

    # What it is made of

    def get_param_groups(self) -> dict[str, list[Parameter]]:
        """Densities and coefficients of the field and of its pilot."""
        return {
            "density": [self.grid.density],
            "sh": [self.grid.sh],
            "pilot_density": [self.pilot.density],
            "pilot_sh": [self.pilot.sh],
        }

    @property
    def rendering(self) -> Rendering:
        """How pictures of the stream are made."""
        return Rendering(ndc=tuple(self.ndc.tolist()), background=self.config.background_brightness)

    def march(self, stop_thresh: float) -> March:
        """How training rays are marched."""
        return march_of(self.rendering, stop_thresh)

    def see_scene(self, run: TrainingRun) -> None:
        """Take over the coordinates of the scene's first camera."""
        first = run.manager.train_dataset.cameras[0]
        self.ndc.copy_(torch.tensor([float(first.fx), float(first.fy), int(first.width), int(first.height)]))

    def make_grid(self, size: tuple[int, int, int]) -> None:
        """The field at the start: all voxels of a box around what the cameras see."""
        _, _, width, height = self.ndc.tolist()
        radius = (1 + 2 * self.config.offset / width, 1 + 2 * self.config.offset / height, 1.0)
        grid = SparseGrid.full(size, radius)
        self.grid.radius.copy_(grid.radius)
        self.grid.replace(grid.active.to(self.device), grid.density, grid.sh)

    def density_space(self) -> DensitySpace:
        """The grid's box, in normalised device coordinates."""
        fx, fy, width, height = self.ndc.tolist()
        center = self.grid.center * self.grid.center.new_tensor(DOWNWARDS)
        box = torch.stack([center - self.grid.radius, center + self.grid.radius])
        return DensitySpace(box, NDC(2 * fx / width, 2 * fy / height))

    @torch.no_grad()
    def density_at(self, points: Tensor) -> Tensor:
        """Density (N,) at points (N, 3), in 1 / unit of these coordinates. (The grid has y downwards.)"""
        return self.grid.sample(points * points.new_tensor(DOWNWARDS))[0][:, 0].clamp(min=0)

    # Pictures

    def background_colour(self) -> Tensor:
        """Grey of the brightness that the settings say."""
        return torch.full((3,), self.config.background_brightness, device=self.device)

    def get_outputs(self, ray_bundle: RayBundle) -> dict[str, Tensor]:
        """``rgb`` (N, 3), ``accumulation`` and ``depth`` (N, 1) of the frame that the field is of."""
        shape = ray_bundle.origins.shape[:-1]
        origins, directions = (x.reshape(-1, 3).float() for x in (ray_bundle.origins, ray_bundle.directions))
        found = render_rays(self.grid, self.rendering, origins, directions)
        return {name: value.view(*shape, -1) for name, value in found.items()}

    def get_loss_dict(self, outputs: dict, batch: dict, metrics_dict: dict | None = None) -> dict[str, Tensor]:
        """Squared error of the colours."""
        return {"rgb_loss": (outputs["rgb"] - self.target(batch)).square().mean()}

    def decoded_psnr(self, run: TrainingRun) -> float:
        """PSNR of the first test view of the present frame, rendered from the decoded field and clamped to [0, 1]."""
        dataset = run.manager.eval_dataset
        camera = dataset.cameras[:1].to(self.device)
        found = self.get_outputs_for_camera(camera)
        picture = torch.from_numpy(dataset.get_numpy_image(0)).to(self.device).float() / 255
        return float(psnr(found["rgb"].clamp(0, 1), picture[..., :3]))

    # The stream

    def stream_folder(self, run: TrainingRun) -> Path:
        """Where the run's stream is written."""
        return run.trainer.base_dir / STREAM

    def stored(self, grid: SparseGrid) -> FieldState:
        """What a stream holds of a field that is no difference."""
        return state_of(grid).stored(self.config.half, self.config.sh_step)

    def begin_stream(self, run: TrainingRun) -> None:
        """Write the base of the stream: the field as it is."""
        from projects.streamrf.container import StreamWriter

        base = BaseModel(
            state=state_of(self.grid),
            half=self.config.half,
            rendering=self.rendering,
            cameras=cameras_digest_of(run),
            notes={"method": run.trainer.config.method_name},
        )
        self._writer = StreamWriter.create(self.stream_folder(run), base, self.config.key_every)
        score = self.decoded_psnr(run)
        CONSOLE.log(f"frame 0: PSNR {score:.2f} dB, {len(self.grid.sh)} voxels")
        self._log(run, {"frame": 0, "psnr": score, "voxels": len(self.grid.sh)})

    def writer(self, run: TrainingRun) -> StreamWriter:
        """What the next frame is written to; frames that a resumed run trains again are removed from it.

        Raises:
            SceneError: the stream is missing, whose last frame a resumed run goes on from.
        """
        from projects.streamrf.container import StreamWriter

        if self._writer is None:
            folder = self.stream_folder(run)
            if not folder.is_dir():
                raise SceneError(
                    f"{folder} is missing: the stream that the run goes on with must lie beside its checkpoints"
                )
            self._writer = StreamWriter.resume(folder, int(self.frame))
            self._forget_log(folder.parent / LOG)
        return self._writer

    def report(
        self,
        run: TrainingRun,
        frame: int,
        delta: FrameDelta,
        size: int,
        score: float,
        seconds: Mapping[str, float],
    ) -> None:
        """Say and keep what a frame has cost, and how much of the pictures had changed."""
        difference = run.manager.pixels.difference
        CONSOLE.log(
            f"frame {frame}: PSNR {score:.2f} dB, {size} bytes, {len(delta.added_sh)} voxels added, "
            f"{len(delta.changed_sh)} of {len(delta.changed)} changed, {sum(seconds.values()):.1f} s; pictures changed "
            f"by {difference.mean:.3f}, {difference.visible:.0%} of the pixels visibly"
        )
        if difference.visible > MUCH and not self._warned:
            self._warned = True
            CONSOLE.print(
                f"warning: {difference.visible:.0%} of the pixels changed visibly from frame {frame - 1} to {frame}: "
                "a step follows small motion only, and what moves further vanishes or smears; give it every frame of "
                "the video, or more steps (--pipeline.model.full.iters)",
                style="bold yellow",
            )
        entry = {
            "frame": frame,
            "psnr": score,
            "bytes": size,
            "added": len(delta.added_sh),
            "changed": len(delta.changed_sh),
            "common": len(delta.changed),
            "raw_bytes": delta.raw_bytes,
            "mean_change": difference.mean,
            "changed_pixels": difference.visible,
            "seconds": sum(seconds.values()),
            **{f"{part}_seconds": value for part, value in seconds.items()},
        }
        self._log(run, entry)

    def _log(self, run: TrainingRun, entry: Mapping[str, Any]) -> None:
        with (run.trainer.base_dir / LOG).open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _forget_log(self, path: Path) -> None:
        """Drop the lines of frames that are trained again."""
        if path.is_file():
            lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
            kept = [line for line in lines if json.loads(line)["frame"] <= int(self.frame)]
            path.write_text("".join(line + "\n" for line in kept))

    # Checkpoints

    def may_save(self) -> bool:
        """Whether a run could go on from a checkpoint of now: not in the middle of a later frame."""
        return self.before is None and self.change is None

    def load_state_dict(self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False):
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        self.grid.refresh()
        self.pilot.refresh()
        return result


def cameras_digest_of(run: TrainingRun) -> str:
    """Names the training cameras, so that a stream of others is told apart."""
    cameras = run.manager.train_dataset.cameras
    numbers = [
        cameras.camera_to_worlds.reshape(-1),
        *(getattr(cameras, name).reshape(-1) for name in ("fx", "fy", "cx", "cy")),
    ]
    rounded = torch.cat([values.double() for values in numbers]).mul(1e4).round().long()
    return hashlib.sha256(rounded.numpy().tobytes()).hexdigest()[:16]
