"""Time of a training step of a voxel field: ours, the dense formulation of the same maths, and nerfstudio's nerfacto.

All three get the same rays of the built-in scene and alternate. Ours is the fine stage of VQRF after some training,
with its free-space mask; the dense formulation has the same grids and network, but every sample of every ray in one
rectangle, read with `grid_sample`, and torch's Adam; nerfacto is nerfstudio's default method on its torch
implementation (there is no network access, so its LPIPS, which training does not use, is left out).

    python benchmarks/radiance_step.py --rays 1024 --voxels 64 --rounds 7
"""

import argparse
import statistics
import tempfile
import time
from copy import deepcopy
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from nerfstudio.data.scene_box import SceneBox
from nerfstudio.models.nerfacto import NerfactoModelConfig

from perception.datasets.synthetic import radiance
from perception.engine.memory import keep_freed_memory
from perception.ops.ray_aabb import ray_aabb
from perception.radiance.dvgo import DirectVoxGO
from perception.radiance.encodings import positional_encoding
from perception.radiance.losses import dvgo_losses
from perception.radiance.optim import MaskedAdam
from perception.studio.datamanager import unnormalised
from projects.vqrf.config import vqrf_tiny

NEAR, STEPSIZE = 2.0, 0.5
LPIPS = "torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity"


def trained(folder: Path, voxels: int, rays: int):
    """A run that has trained its fine field at full resolution for a while."""
    config = deepcopy(vqrf_tiny.config)
    config.data, config.output_dir, config.experiment_name, config.timestamp = folder / "scene", folder, "run", "now"
    config.pipeline.datamanager.data = folder / "scene"
    config.pipeline.datamanager.train_num_rays_per_batch = rays
    config.machine.device_type, config.pipeline.model.report_split = "cpu", "none"
    config.logging.local_writer.enable = False
    config.pipeline.model.fine.num_voxels, config.pipeline.model.fine.rgbnet_width = voxels**3, 128
    config.max_num_iterations = config.pipeline.model.coarse.iters + 400
    torch.manual_seed(42)
    trainer = config.setup(local_rank=0, world_size=1)
    trainer.setup()
    trainer.train()
    return trainer


class Ours:
    """A step of the fine stage."""

    def __init__(self, field: DirectVoxGO):
        self.field = deepcopy(field)
        self.optimizers = [
            MaskedAdam([self.field.density.grid], lr=0.1, skip_zero_grad=True),
            MaskedAdam([self.field.k0.grid], lr=0.1, skip_zero_grad=True),
            MaskedAdam(self.field.rgbnet.parameters(), lr=1e-3),
        ]
        self.samples = 0

    def __call__(self, bundle, target):
        outputs = self.field(*unnormalised(bundle), near=NEAR, stepsize=STEPSIZE)
        self.samples = len(outputs["weights"])
        losses = dvgo_losses(outputs, target, weight_entropy_last=1e-3, weight_rgbper=1e-2)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        sum(losses.values()).backward()
        for optimizer in self.optimizers:
            optimizer.step()


class Dense:
    """The same field without a mask, thresholds or ragged arrays: (rays, samples) rectangles throughout."""

    def __init__(self, field: DirectVoxGO):
        self.field = deepcopy(field)
        self.density = torch.nn.Parameter(field.density.grid.detach().contiguous())
        self.k0 = torch.nn.Parameter(field.k0.grid.detach().contiguous())
        self.optimizer = torch.optim.Adam([self.density, self.k0, *self.field.rgbnet.parameters()], lr=1e-4)

    def __call__(self, bundle, target):
        field = self.field
        rays_o, rays_d, viewdirs = unnormalised(bundle)
        t_min, t_max = ray_aabb(rays_o, rays_d, field.xyz_min, field.xyz_max, NEAR)
        stepdist, length = STEPSIZE * field.voxel_size, rays_d.norm(dim=-1)
        count = int(((t_max - t_min) * length / stepdist).ceil().max())
        along = t_min[:, None] * length[:, None] + stepdist * torch.arange(count)
        points = rays_o[:, None] + viewdirs[:, None] * along[..., None]  # (N, S, 3)
        unit = ((points - field.xyz_min) / (field.xyz_max - field.xyz_min)).flip(-1) * 2 - 1
        inside = (unit.abs() <= 1).all(-1)
        read = [F.grid_sample(g, unit[None, None], align_corners=False)[0, :, 0] for g in (self.density, self.k0)]
        alpha = 1 - (1 + (read[0][0] + field.act_shift).exp()).pow(-STEPSIZE * float(field.voxel_size_ratio))
        alpha = alpha * inside
        after = torch.cumprod(1 - alpha, 1)
        weights = alpha * torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
        view = positional_encoding(viewdirs, field.viewfreq)[:, None].expand(-1, count, -1)
        rgb = field.rgbnet(torch.cat([read[1].movedim(0, -1), view], -1)).sigmoid()
        clear = after[:, -1].clamp(1e-6, 1 - 1e-6)
        marched = (weights[..., None] * rgb).sum(1) + after[:, -1:]
        entropy = -(clear * clear.log() + (1 - clear) * (1 - clear).log()).mean()
        error = (weights.detach() * (rgb - target[:, None]).square().sum(-1)).sum() / len(target)
        loss = F.mse_loss(marched, target) + 1e-3 * entropy + 1e-2 * error
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


class Nerfacto:
    """A step of nerfstudio's default method."""

    def __init__(self, num_images: int):
        config = NerfactoModelConfig(implementation="torch")
        config.camera_optimizer.mode = "off"
        box = SceneBox(aabb=torch.tensor([[-1.5] * 3, [1.5] * 3]))
        with mock.patch(LPIPS, return_value=None):
            self.model = config.setup(scene_box=box, num_train_data=num_images)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-2)

    def __call__(self, bundle, target):
        outputs = self.model(deepcopy(bundle))
        losses = self.model.get_loss_dict(
            outputs, {"image": target}, self.model.get_metrics_dict(outputs, {"image": target})
        )
        self.optimizer.zero_grad()
        sum(losses.values()).backward()
        self.optimizer.step()


def bounds(field: DirectVoxGO, bundle) -> str:
    """What a step must do at least, against this machine's measured memory bandwidth and matrix products."""
    with torch.no_grad():
        outputs = field(*unnormalised(bundle), near=NEAR, stepsize=STEPSIZE)
        looked_at = len(field.sample_ray(*unnormalised(bundle)[:2], near=NEAR, stepsize=STEPSIZE).ray_id)
    coloured = len(outputs["weights"])
    # Per point 8 corners are read once, and read and written once for the gradient; the optimiser reads and writes
    # parameter, two moments and gradient of what was touched, at most once per corner.
    channels = 12
    grids = 4 * 8 * (looked_at * 1 + coloured * channels) * 3
    optimiser = 4 * 7 * field.k0.grid.numel() * min(1.0, 8 * coloured / field.density.grid.numel())
    products = 2 * 3 * coloured * sum(p.numel() for p in field.rgbnet.parameters() if p.dim() == 2)
    block = torch.ones(64 * 2**20)
    other = torch.empty_like(block)
    copy = 2 * 4 * block.numel() / fastest(lambda: other.copy_(block))
    side = torch.ones(1024, 1024)
    flops = 2 * 1024**3 / fastest(lambda: side @ side)
    memory_s, matrix_s = (grids + optimiser) / copy, products / flops
    return (
        f"{looked_at} samples in marked cells, {coloured} of them coloured\n"
        f"memory: {(grids + optimiser) / 1e6:.0f} MB at {copy / 1e9:.1f} GB/s = {1e3 * memory_s:.1f} ms; "
        f"products: {products / 1e9:.2f} GFLOP at {flops / 1e9:.0f} GFLOP/s = {1e3 * matrix_s:.1f} ms"
    )


def fastest(call, times=8) -> float:
    call()
    durations = []
    for _ in range(times):
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return min(durations)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rays", type=int, default=1024)
    parser.add_argument("--voxels", type=int, default=64, help="side of the cube that the grid's voxels would fill")
    parser.add_argument("--size", type=int, default=100, help="of the scene's images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        radiance.write(folder / "scene", radiance.Params(size=args.size))
        trainer = trained(folder, args.voxels, args.rays)
        manager, field = trainer.pipeline.datamanager, trainer.pipeline.model.field
        steps = {"ours": Ours(field), "dense": Dense(field), "nerfacto": Nerfacto(len(manager.train_dataset))}
        durations = {name: [] for name in steps}
        for number in range(args.rounds + 1):
            bundle, batch = manager.next_train(10_000 + number)
            for name, step in steps.items():
                start = time.perf_counter()
                step(bundle, batch["image"])
                if number:  # the first round warms up
                    durations[name].append(time.perf_counter() - start)
        ours = statistics.median(durations["ours"])
        for name, seconds in durations.items():
            middle = statistics.median(seconds)
            print(f"{name:9} {1e3 * middle:8.1f} ms  {args.rays / middle:9.0f} rays/s  {middle / ours:6.2f} x ours")
        print(bounds(field, bundle))
        with torch.profiler.profile() as profile:
            steps["ours"](bundle, batch["image"])
        table = profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=36)
        print("\n".join(line[:96] for line in table.splitlines()))


if __name__ == "__main__":
    main()
