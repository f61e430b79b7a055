"""DN2N's model trained on the two planes, without files: for the test that it learns, and for ablations.

python -m tests.projects.dn2n.overfit --steps 300
"""

import argparse
from dataclasses import replace
from types import SimpleNamespace

import torch
from nerfstudio.cameras.rays import RayBundle
from nerfstudio.data.scene_box import SceneBox

from perception.radiance.metrics import psnr
from projects.dn2n.bank import SceneSpan, poses_of
from projects.dn2n.model import DN2NModel, DN2NModelConfig
from projects.dn2n.perturbation import PerturbationSettings, perturb_views
from projects.dn2n.projection import camera_rays
from projects.dn2n.rendering import Rays
from projects.dn2n.settings import NetworkSettings, TrainingSettings
from projects.dn2n.sources import SourceSettings
from projects.dn2n.training_views import training_sample
from tests.projects.dn2n import planes

HELD_OUT = 5
RAYS = 64


class Planes:
    """The scene as a bank of 11 views, and the held-out one."""

    def __init__(self):
        every = planes.cameras()
        rendered = torch.stack([planes.render(camera)[0] for camera in every])
        kept = [number for number in range(len(every)) if number != HELD_OUT]
        self.camera, self.target = every[HELD_OUT], rendered[HELD_OUT]
        self.all, self.cameras = rendered[kept], every[kept]
        self.bank = SimpleNamespace(
            scenes=[SceneSpan("planes", 0, len(kept), planes.NEAR, planes.FAR)],
            poses=poses_of(self.cameras),
            cameras=self.cameras,
            edits={},
            offline={},
            scene_of=lambda view: 0,
            image=lambda view: self.all[view],
            images=lambda views: self.all[views],
        )


def make_model(training: TrainingSettings) -> DN2NModel:
    """A small model with weights that are always the same at first."""
    torch.manual_seed(0)
    config = DN2NModelConfig(
        compute_lpips=False,
        network=NetworkSettings(8, (8, 16, 32), (1, 1, 1), 16, 16, min_seen=4),
        sources=SourceSettings(count=5, spread=1),
        training=training,
    )
    return config.setup(scene_box=SceneBox(aabb=torch.tensor([[-1.0] * 3, [1.0] * 3])), num_train_data=11)


def train(model: DN2NModel, scene: Planes, steps: int) -> None:
    """Train from step 0 on."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * 0.2 ** (step / steps)
        random = torch.Generator().manual_seed(step)
        view = int(torch.randint(len(scene.cameras), (1,), generator=random))
        rows, columns = (torch.randint(side, (RAYS,), generator=random) for side in (planes.HEIGHT, planes.WIDTH))
        indices = torch.stack([torch.full_like(rows, view), rows, columns], -1)
        sample = training_sample(scene.bank, indices, model.config.sources, model.config.training, seed=step)
        origins, directions = camera_rays(scene.cameras[view], indices[:, [2, 1]].float())
        length = directions.norm(dim=1, keepdim=True)
        rays = RayBundle(origins, directions / length, torch.ones(RAYS, 1), metadata={"directions_norm": length})
        _, losses, _ = model.training_losses(sample, rays, step)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()


@torch.no_grad()
def picture(model: DN2NModel, scene: Planes, seed: int | None = None) -> torch.Tensor:
    """The held-out view (H, W, 3), rendered from sources as they are, or perturbed by a seed."""
    images = scene.all
    if seed is not None:
        images = perturb_views(images, PerturbationSettings(), seed=seed, views=list(range(len(images))))
    near = (scene.bank.poses[:, :3, 3] - scene.camera[18:34].view(4, 4)[:3, 3]).norm(dim=1).argsort()[:6]
    sources = model.renderer.sources(images[near], scene.cameras[near])
    rays = Rays(*camera_rays(scene.camera, planes.pixels()), scene.camera, planes.NEAR, planes.FAR)
    return model.renderer(rays, sources).best.rgb.view(planes.HEIGHT, planes.WIDTH, 3)


def measure(model: DN2NModel, scene: Planes) -> dict[str, float]:
    """PSNR with clean and perturbed sources, and the variance of pictures from differently perturbed ones."""
    target = scene.target.movedim(0, -1)
    perturbed = torch.stack([picture(model, scene, seed) for seed in range(1000, 1006)])
    return {
        "psnr": float(psnr(picture(model, scene), target)),
        "psnr, perturbed sources": float(torch.stack([psnr(one, target) for one in perturbed]).mean()),
        "variance": float(perturbed.var(0).mean()),
    }


def main() -> None:
    """Print measures of the ablations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=300)
    steps = parser.parse_args().steps
    scene = Planes()
    full = TrainingSettings(iters=steps, style_probability=0.0)
    clean = replace(
        full,
        source_sets=1,
        perturbation=PerturbationSettings(probability=0.0),
        weight_self=0.0,
        weight_neighbour=0.0,
    )
    print("untrained", measure(make_model(full), scene), flush=True)
    print("mean image", float(psnr(scene.all.mean(0), scene.target)), flush=True)
    variants = {"clean": clean, "full": full, "without L_self": replace(full, weight_self=0.0)}
    for name, training in variants.items():
        model = make_model(training)
        train(model, scene, steps)
        print(name, measure(model, scene), flush=True)


if __name__ == "__main__":
    main()
