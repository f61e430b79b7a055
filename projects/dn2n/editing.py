"""Editing the views of a scene once: a cache of edited images, the content filter, and the folder of an edit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from perception.datasets.images import UnreadableImageError, read_image
from perception.engine.atomic import output_folder, replacing
from perception.engine.errors import UserError
from perception.studio.errors import SceneError
from projects.dn2n.bank import EditedScene, SourceBank
from projects.dn2n.editors import EditorSettings, ImageEditor
from projects.dn2n.filtering import Embedding, FilterSettings, Selection, image_scores, select

MANIFEST = "edit.json"
CHANGED = 10 / 255
"""Largest difference of a channel from which a pixel counts as changed."""
LITTLE = 0.01
"""Mean difference of the images below which an edit is called unchanged."""


@dataclass
class EditRequest:
    """What is to be done with a scene."""

    prompt: str
    source_caption: str = "a photo of a scene"
    seed: int = 0
    rounds: int = 3
    """How often dropped views are edited again, with the next seed, where the filter leaves too few."""
    use_filter: bool = True
    masks: Path | None = None
    """Folder of masks with the names of the images: edited where they are white, left as it is where they are black."""
    editor: EditorSettings = field(default_factory=EditorSettings)
    filter: FilterSettings = field(default_factory=FilterSettings)

    def check(self) -> None:
        """Raise where the request makes no sense.

        Raises:
            UserError: the prompt is empty.
        """
        if not self.prompt.strip() and self.editor.name != "identity":
            raise UserError(
                "the prompt is empty: say what the scene shall look like, such as --prompt 'a scene in snow'"
            )


@dataclass
class Edit:
    """The edited views of a scene, and what the filter made of them."""

    request: EditRequest
    images: Tensor  # (V, 3, H, W) edited
    originals: Tensor  # (V, 3, H, W)
    hashes: list[str]  # of the originals
    seeds: list[int]  # of each view's edit
    scores: Tensor  # (V, 4)
    selection: Selection
    undone: float | None = None  # share of the visibly edited pixels that masks have taken back

    @property
    def keep_ratio(self) -> float:
        """Share of the views that are kept."""
        return len(self.selection.keep) / len(self.images)

    @property
    def mean_change(self) -> float:
        """Mean absolute difference from the originals."""
        return float((self.images - self.originals).abs().mean())

    @property
    def changed_share(self) -> float:
        """Share of the pixels that differ visibly."""
        return float(_visible(self.images, self.originals).mean())

    def survivors(self) -> EditedScene:
        """What the scene is rendered from."""
        return EditedScene(self.images[self.selection.keep], self.selection.keep.tolist())


def edit_scene(
    bank: SourceBank,
    scene: int,
    request: EditRequest,
    editor: ImageEditor,
    embedding: Embedding,
    cache: Path,
    on_view: Callable[[], object] = lambda: None,
    masks: Tensor | None = None,
    numbers: Sequence[int] | None = None,
) -> Edit:
    """Edit all views of a scene, or take what the cache holds of them, and filter.

    Args:
        bank: with the scene.
        scene: its number.
        request: what to do.
        editor: of the request.
        embedding: of the filter.
        cache: folder in which edited images are kept, under the hash of all that they depend on.
        on_view: called after each view.
        masks: (V, 1, H, W) in [0, 1], how much of the edit each pixel takes.
        numbers: of the views, for the editor's draws, where the bank lacks some of the scene's; by default 0 to V - 1.

    Raises:
        UserError: the prompt is empty, or the cache cannot be written.
    """
    request.check()
    span = bank.scenes[scene]
    originals = bank.images(list(range(span.start, span.end)))
    hashes = [image_hash(image) for image in originals]
    seeds = [request.seed] * len(originals)
    numbers = range(len(originals)) if numbers is None else numbers
    leaks = torch.zeros(len(originals), 2)  # visibly edited pixels that masks take back, and all

    def edited(view: int) -> Tensor:
        image = _edited(originals[view], hashes[view], numbers[view], seeds[view], request, editor, cache)
        if masks is None:
            return image
        visible = _visible(image, originals[view])
        leaks[view] = torch.tensor([float((visible * (1 - masks[view, 0])).sum()), float(visible.sum())])
        return torch.lerp(originals[view], image, masks[view])

    found: list[Tensor] = []
    for view in range(len(originals)):
        found.append(edited(view))
        on_view()
    images, settings = torch.stack(found), request.filter
    centres = bank.poses[span.start : span.end, :3, 3]

    def rate() -> Tensor:
        return image_scores(
            images,
            originals,
            centres,
            embedding,
            target=request.prompt,
            source=request.source_caption,
            neighbours=settings.neighbours,
        )

    scores = rate()
    shares = (settings.drop_top, settings.drop_bottom) if request.use_filter else (0.0, 0.0)
    for _ in range(request.rounds if request.use_filter else 0):
        strict = select(scores, *shares, min_views=0)
        if len(strict.keep) >= min(settings.min_views, len(images)):
            break
        for view in sorted(set(range(len(images))) - set(strict.keep.tolist())):
            seeds[view] += 1
            images[view] = edited(view)
        scores = rate()
    chosen = select(scores, *shares, settings.min_views)
    undone = None if masks is None else float(leaks[:, 0].sum() / leaks[:, 1].sum().clamp(min=1))
    return Edit(request, images, originals, hashes, seeds, scores, chosen, undone)


def read_masks(folder: Path, names: list[str], size: tuple[int, int]) -> Tensor:
    """The masks (V, 1, H, W) in [0, 1] of views, from files with the names of their images, whatever their endings.

    Args:
        folder: of the masks; an image without one is an error, a mask without an image is not.
        names: of the image files, in order.
        size: height and width of the images.

    Raises:
        UserError: a mask is missing, has another size, or all are black.
    """
    if not folder.is_dir():
        raise UserError(f"--masks {folder}: there is no such folder")
    files = {path.stem: path for path in sorted(folder.iterdir()) if path.is_file()}
    missing = [name for name in names if Path(name).stem not in files]
    if missing:
        raise UserError(f"{folder} has no mask for {missing[0]}, and for {len(missing)} of {len(names)} images in all")
    masks = []
    for name in names:
        path = files[Path(name).stem]
        try:
            mask = torch.from_numpy(read_image(path).copy()).float().mean(-1) / 255
        except UnreadableImageError as error:
            raise UserError(f"cannot read {path}: {error}") from None
        if tuple(mask.shape) != tuple(size):
            raise UserError(
                f"{path} is {mask.shape[1]} x {mask.shape[0]} pixels, but its image {size[1]} x {size[0]}: masks must "
                "have the size of the images"
            )
        masks.append(mask[None])
    together = torch.stack(masks)
    if not bool((together > 0).any()):
        raise UserError(f"all masks in {folder} are black: white is what is edited")
    return together


def _visible(edited: Tensor, original: Tensor) -> Tensor:
    """Where images (..., 3, H, W) differ visibly: (..., H, W), 0 or 1."""
    return ((edited - original).abs().amax(-3) > CHANGED).float()


def image_hash(image: Tensor) -> str:
    """Of the pixels and size of an image (3, H, W)."""
    return hashlib.sha256(str(tuple(image.shape)).encode() + image.contiguous().numpy().tobytes()).hexdigest()[:32]


def cache_key(original: str, view: int, seed: int, request: EditRequest, editor: ImageEditor) -> str:
    """Under which an edited image is kept: all that it depends on."""
    settings = {**asdict(request.editor), "weights": str(request.editor.weights)}
    parts = [original, view, seed, editor.name, editor.version, settings, request.prompt, request.source_caption]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def _edited(
    image: Tensor, original: str, view: int, seed: int, request: EditRequest, editor: ImageEditor, cache: Path
) -> Tensor:
    """One edited image; all but those of the identity editor have 8 bits, whether they come from the cache or not."""
    if editor.name == "identity":
        return image
    path = cache / f"{cache_key(original, view, seed, request, editor)}.png"
    if not path.is_file():
        output_folder(cache)
        save_image(path, editor.edit(image[None], request.prompt, request.source_caption, seed, [view])[0])
    return load_image(path)


def save_image(path: Path, image: Tensor) -> None:
    """Write an image (3, H, W) in [0, 1] as PNG, under a temporary name until it is complete."""
    pixels = (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy()
    with replacing(path) as file:
        Image.fromarray(pixels).save(file, format="PNG")


def load_image(path: Path) -> Tensor:
    """An image (3, H, W) in [0, 1] that :func:`save_image` wrote."""
    try:
        pixels = read_image(path)
    except UnreadableImageError as error:
        raise SceneError(f"cannot read {path}: {error}") from None
    return torch.from_numpy(pixels.copy()).movedim(-1, 0).float() / 255


def write_edit(edit: Edit, names: list[str], data: Path, folder: Path) -> None:
    """Write the folder of an edit: `edited/NAME.png` of every view, and `edit.json`, which says how they were made and
    which are kept.

    Args:
        edit: what to write.
        names: of the views' image files.
        data: folder of the scene.
        folder: to write to.
    """
    output_folder(folder / "edited")
    kept = set(edit.selection.keep.tolist())
    views = []
    for number, name in enumerate(names):
        file = f"edited/{number:04d}_{Path(name).stem}.png"
        save_image(folder / file, edit.images[number])
        views.append(
            {
                "name": name,
                "file": file,
                "original": edit.hashes[number],
                "seed": edit.seeds[number],
                "scores": [round(score, 6) for score in edit.scores[number].tolist()],
                "mean_rank": float(edit.selection.mean_rank[number]),
                "kept": number in kept,
            }
        )
    request = {
        **asdict(edit.request),
        "masks": None if edit.request.masks is None else str(edit.request.masks.absolute()),
        "editor": {**asdict(edit.request.editor), "weights": str(edit.request.editor.weights)},
    }
    content = {
        "data": str(data.absolute()),
        "request": request,
        "keep_ratio": edit.keep_ratio,
        "mean_change": edit.mean_change,
        "undone_by_masks": edit.undone,
        "views": views,
    }
    with replacing(folder / MANIFEST) as file:
        file.write(json.dumps(content, indent=1).encode())


def use_edit(bank: SourceBank, folder: Path) -> None:
    """Render the one scene of a bank from the surviving views of an edit.

    Raises:
        SceneError: the folder holds no edit, or one of other images.
    """
    try:
        content = json.loads((folder / MANIFEST).read_text())
        views, editor = content["views"], content["request"]["editor"]["name"]
        kept = [number for number, view in enumerate(views) if view["kept"]]
        files = [folder / views[number]["file"] for number in kept]
        hashes = [view["original"] for view in views]
    except (OSError, ValueError, KeyError, TypeError):
        raise SceneError(f"{folder} holds no edit that `dn2n edit` wrote") from None
    span = bank.scenes[0]
    if len(bank.scenes) != 1 or span.end - span.start != len(views):
        raise SceneError(f"{folder} is an edit of {len(views)} views of {content.get('data')}, not of this scene")
    for number, (view, expected) in enumerate(zip(views, hashes)):
        if image_hash(bank.image(span.start + number)) != expected:
            raise SceneError(f"{view['name']} has changed since {folder} was made: edit the scene again")
    images = [bank.image(number) for number in kept] if editor == "identity" else [load_image(file) for file in files]
    bank.edits[0] = EditedScene(torch.stack(images), kept)
