"""What the command `dn2n` does: renders views with their metrics, and edits scenes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from perception.engine.atomic import output_folder
from perception.radiance.metrics import psnr, ssim
from perception.studio.camera_paths import read_camera_path
from perception.studio.evaluation import mean
from perception.studio.progress import progress_bar
from projects.dn2n.consistency import warped_error
from projects.dn2n.editing import LITTLE, Edit, EditRequest, edit_scene, read_masks, save_image, write_edit
from projects.dn2n.editors import ImageEditor
from projects.dn2n.filtering import SCORES, Embedding, nearest_views
from projects.dn2n.report import shown_views, write_report
from projects.dn2n.trained import Trained

POORLY_SEEN = 0.2
"""Share of a picture's rays, seen by fewer than two source views almost everywhere, from which it is said."""
PAIRS = 8
"""Pairs of views whose agreement is measured."""
DISAGREE = 2.0
"""How many times as much as the originals edited views may disagree before it is said."""


@torch.no_grad()
def render_views(trained: Trained, out: Path, split: str, camera_path: Path | None) -> Iterator[str]:
    """Render a split, or a camera path, into ``out/NUMBER.png``; gives lines about them.

    Of a split's views PSNR and SSIM are measured, beside the PSNR of the nearest source view and of the mean source
    image, which a renderer must beat.
    """
    output_folder(out)
    if camera_path is not None:
        yield _render_path(trained, out, camera_path)
        return
    cameras, images = trained.views(split)
    span, found = trained.bank.scenes[0], {}
    originals = trained.bank.images(list(range(span.start, span.end)))
    uncovered = []
    with progress_bar(f"Rendering the {split} views", len(images)) as advance:
        for number, image in enumerate(images):
            outputs = trained.render(cameras, number)
            save_image(out / f"{number:04d}.png", outputs["rgb"].movedim(-1, 0))
            scores = {"psnr": float(psnr(outputs["rgb"], image))}
            if min(image.shape[:2]) >= 11:
                scores["ssim"] = float(ssim(outputs["rgb"], image))
            if originals.shape[-2:] == image.shape[:2]:
                nearest = originals[trained.nearest_source(cameras, number)]
                scores["psnr of the nearest source view"] = float(psnr(nearest.movedim(0, -1), image))
                scores["psnr of the mean source image"] = float(psnr(originals.mean(0).movedim(0, -1), image))
            for name, value in scores.items():
                found.setdefault(name, []).append(value)
            uncovered.append(1 - float(outputs["coverage"].mean()))
            advance()
    yield f"{len(images)} {split} views in {out}: " + ", ".join(f"{name} {mean(v):.4f}" for name, v in found.items())
    yield from _coverage(uncovered)


def _render_path(trained: Trained, out: Path, camera_path: Path) -> str:
    frames = read_camera_path(camera_path)
    with progress_bar("Rendering the camera path", len(frames)) as advance:
        for number in range(len(frames)):
            pictures = [
                trained.model.get_outputs_for_camera(eye[number : number + 1], frames.crop)["rgb"].cpu()
                for eye in frames.eyes
            ]
            save_image(out / f"{number:05d}.png", frames.join(pictures).movedim(-1, 0))
            advance()
    return f"{len(frames)} frames in {out}"


def _coverage(uncovered: list[float]) -> Iterator[str]:
    worst = max(uncovered)
    if worst > POORLY_SEEN:
        yield (
            f"warning: {sum(share > POORLY_SEEN for share in uncovered)} views look where the source views hardly do: "
            f"up to {worst:.0%} of a picture's rays have too few samples that two sources see, and are guesses"
        )


@torch.no_grad()
def edit_and_render(
    trained: Trained,
    request: EditRequest,
    editor: ImageEditor,
    embedding: Embedding,
    cache: Path,
    out: Path,
    split: str,
    camera_path: Path | None,
) -> Iterator[str]:
    """Edit a scene, write the edit, its report and renderings into ``out``; gives lines about them."""
    output_folder(out)
    bank, count = trained.bank, len(trained.names)
    masks = None
    if request.masks is not None:
        masks = read_masks(request.masks, trained.names, tuple(bank.image(0).shape[-2:]))
    yield f"Editing {count} views with {editor.name}: {request.prompt!r}"
    pairs = source_pairs(trained)
    depths = _depths(trained, pairs)  # of the originals
    with progress_bar("Editing", count) as advance:
        edit = edit_scene(bank, 0, request, editor, embedding, cache, advance, masks)
    write_edit(edit, trained.names, Path(trained.config.data), out)
    bank.edits[0] = edit.survivors()
    trained.model.attach(bank)
    kept = len(edit.selection.keep)
    yield (
        f"{kept} of {count} views kept ({edit.keep_ratio:.0%}); images changed by {edit.mean_change:.3f} on average, "
        f"{edit.changed_share:.0%} of the pixels visibly"
    )
    if edit.undone is not None:
        yield f"{edit.undone:.0%} of what the editor changed visibly lay outside of the masks, and was taken back"
    yield "mean scores: " + ", ".join(
        f"{name} {value:.3f}" for name, value in zip(SCORES, edit.scores.mean(0).tolist())
    )
    if edit.mean_change < LITTLE and request.editor.name != "identity":
        yield f"warning: the edit hardly changes the images (below {LITTLE}): is the prompt what was meant?"
    cameras, _ = trained.views("train")
    shown = shown_views(edit)
    pictures = {view: trained.render(cameras, view)["rgb"].movedim(-1, 0) for view in dict.fromkeys((*shown, *depths))}
    write_report(edit, {view: pictures[view] for view in shown}, out / "report.jpg")
    yield from _agreement(trained, edit, pairs, depths, pictures)
    path = trained.write_config(out)
    yield f"report: {out / 'report.jpg'}; nerfstudio's commands show the edit with --load-config {path}"
    yield from (line for line in render_views(trained, out / "renders", split, camera_path) if "psnr" not in line)
    yield f"pictures in {out / 'renders'}"


def source_pairs(trained: Trained) -> list[tuple[int, int]]:
    """Source views, spread over the scene, each with the nearest other one."""
    near = nearest_views(trained.bank.poses[:, :3, 3], 1)[:, 0].tolist()
    step = max(1, len(near) // PAIRS)
    return [(view, near[view]) for view in range(0, len(near), step)][:PAIRS]


def _depths(trained: Trained, pairs: list[tuple[int, int]]) -> dict[int, Tensor]:
    cameras, _ = trained.views("train")
    return {
        view: trained.render(cameras, view)["depth"][..., 0] for view in sorted({v for pair in pairs for v in pair})
    }


def _agreement(
    trained: Trained,
    edit: Edit,
    pairs: list[tuple[int, int]],
    depths: dict[int, Tensor],
    pictures: dict[int, Tensor],
) -> Iterator[str]:
    """How well edited and rendered views agree, warped by the depths of the unedited scene."""
    views = list(depths)
    place = {view: number for number, view in enumerate(views)}
    stacked, vectors = torch.stack([depths[view] for view in views]), trained.bank.cameras[views]
    own = [(place[one], place[other]) for one, other in pairs]
    rendered = torch.stack([pictures[view] for view in views])
    errors = [
        warped_error(images, stacked, vectors, own) for images in (edit.originals[views], edit.images[views], rendered)
    ]
    before, edited, after = errors
    yield (
        f"warped error of {len(pairs)} neighbouring pairs: originals {before:.5f}, edited images {edited:.5f}, "
        f"rendered {after:.5f}; consistency gain {edited / after if after else float('nan'):.2f}"
    )
    if edited > DISAGREE * before:
        yield (
            f"warning: edited views disagree {edited / before:.1f} times as much as the originals: expect blur; try "
            "less strength, another seed, or a stricter filter (--drop-bottom)"
        )
