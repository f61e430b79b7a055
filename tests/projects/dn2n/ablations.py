"""Edits of a scene that was not trained on, by several runs: how well edited and rendered views agree.

python -m tests.projects.dn2n.ablations SCENE RUN/config.yml OTHER_RUN/config.yml

All runs see the same edited images (the classical editor with noise between the views) and are warped by the depths of
the first one. Only every second pixel is rendered.
"""

import argparse
import tempfile
from pathlib import Path

import torch

from perception.radiance.metrics import psnr, ssim
from perception.studio.evaluation import mean
from projects.dn2n.commands import source_pairs
from projects.dn2n.consistency import warped_error
from projects.dn2n.editing import EditRequest, edit_scene
from projects.dn2n.editors import EditorSettings, make_editor
from projects.dn2n.embeddings import make_embedding
from projects.dn2n.model import TargetView
from projects.dn2n.projection import camera_rays
from projects.dn2n.trained import Trained

PROMPTS = ("a scene in autumn", "a scene in snow", "a blue scene at night")
EVERY = 2  # pixel


def reduced(cameras: torch.Tensor) -> torch.Tensor:
    """Camera vectors (N, 34) of pictures of every second pixel."""
    scale = torch.ones(34)
    scale[[0, 1, 2, 4, 7, 8]] = 1 / EVERY  # height, width, fx, cx, fy, cy
    return cameras * scale


def picture(trained: Trained, view: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A source view rendered from the others: colours (3, h, w) in [0, 1] and depth (h, w)."""
    camera = trained.bank.cameras[view]
    height, width = (int(side) for side in camera[:2])
    v, u = torch.meshgrid(torch.arange(0.0, height, EVERY), torch.arange(0.0, width, EVERY), indexing="ij")
    found = trained.model.render(TargetView(camera, 0), *camera_rays(camera, torch.stack([u, v], -1).reshape(-1, 2)))
    return found["rgb"].clamp(0, 1).T.reshape(3, *u.shape), found["depth"].reshape(u.shape)


@torch.no_grad()
def main() -> None:
    """Print the figures of each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scene", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--pairs", type=int, default=4, help="of neighbouring views (default: %(default)s)")
    parser.add_argument("--jitter", type=float, default=0.5, help="noise between views (default: %(default)s)")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    args = parser.parse_args()
    depths: dict[int, torch.Tensor] = {}
    with tempfile.TemporaryDirectory() as cache:
        for run in args.runs:
            trained = Trained(run, None, args.scene, "cpu")
            cameras, images = trained.views("test")
            shown = [trained.render(cameras, number)["rgb"] for number in range(len(images))]
            scores = [mean([float(score(*pair)) for pair in zip(shown, images)]) for score in (psnr, ssim)]
            print(f"{run}: test views {scores[0]:.2f} dB, SSIM {scores[1]:.3f}", flush=True)
            pairs = source_pairs(trained)[: args.pairs]
            views = sorted({view for pair in pairs for view in pair})
            depths = depths or {view: picture(trained, view)[1] for view in views}
            for prompt in args.prompts:
                print(f"  {prompt}: {edited(trained, prompt, args.jitter, pairs, depths, Path(cache))}", flush=True)


def edited(trained: Trained, prompt: str, jitter: float, pairs, depths: dict[int, torch.Tensor], cache: Path) -> str:
    """Edit the scene and render the views of the pairs from what is kept."""
    request, views = EditRequest(prompt, editor=EditorSettings(jitter=jitter)), list(depths)
    trained.bank.edits.clear()
    edit = edit_scene(trained.bank, 0, request, make_editor(request.editor), make_embedding("hist"), cache)
    trained.bank.edits[0] = edit.survivors()
    trained.model.attach(trained.bank)
    rendered = torch.stack([picture(trained, view)[0] for view in views])
    plain = make_editor(EditorSettings()).edit(edit.originals[views], prompt, None, 0, views)[..., ::EVERY, ::EVERY]
    before, after = (images[views][..., ::EVERY, ::EVERY] for images in (edit.originals, edit.images))
    places = [(views.index(one), views.index(other)) for one, other in pairs]
    stacked, cameras = torch.stack(list(depths.values())), reduced(trained.bank.cameras[views])
    errors = [warped_error(images, stacked, cameras, places) for images in (before, after, rendered)]
    return (
        f"{len(edit.selection.keep)} of {len(edit.images)} kept; warped error: originals {errors[0]:.4f}, edited "
        f"{errors[1]:.4f}, rendered {errors[2]:.4f}, gain {errors[1] / errors[2]:.1f}; PSNR to the edit without noise: "
        f"edited {float(psnr(after, plain)):.2f} dB, rendered {float(psnr(rendered, plain)):.2f} dB"
    )


if __name__ == "__main__":
    main()
