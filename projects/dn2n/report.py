"""The picture of an edit: for some views the original, the edited image with its fate, and the rendering."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from perception.engine.atomic import replacing
from projects.dn2n.editing import Edit

ROWS = 8
LINE = 14  # pixels of a line of text
SIDE = 160  # least width of a picture in the report


def shown_views(edit: Edit, rows: int = ROWS) -> list[int]:
    """Numbers of views for a report: best and worst of the ranking, kept and dropped ones among them."""
    order = edit.selection.order.tolist()
    if len(order) <= rows:
        return order
    return [order[round(place)] for place in torch.linspace(0, len(order) - 1, rows).tolist()]


def write_report(edit: Edit, rendered: dict[int, Tensor], path: Path) -> None:
    """Write the picture.

    Args:
        edit: of the scene.
        rendered: pictures (3, H, W) by the number of their view, in the order in which they are shown.
        path: a PNG or JPEG file.
    """
    height, width = edit.images.shape[-2:]
    factor = max(1, -(-SIDE // width))
    cell = (width * factor, height * factor)
    sheet = Image.new("RGB", (3 * cell[0], LINE + len(rendered) * (cell[1] + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(("original", f"edited: {edit.request.prompt}"[: cell[0] // 6], "rendered")):
        draw.text((column * cell[0] + 2, 1), title, fill="black")
    kept = set(edit.selection.keep.tolist())
    for row, (view, picture) in enumerate(rendered.items()):
        top = LINE + row * (cell[1] + LINE)
        for column, image in enumerate((edit.originals[view], edit.images[view], picture)):
            sheet.paste(_picture(image, cell), (column * cell[0], top))
        scores = " ".join(f"{score:.2f}" for score in edit.scores[view].tolist())
        fate, colour = ("kept", "darkgreen") if view in kept else ("dropped", "red")
        draw.text((2, top + cell[1]), f"view {view}: {fate}, scores {scores}", fill=colour)
    with replacing(path) as file:
        sheet.save(file, format="PNG" if path.suffix == ".png" else "JPEG", quality=90)


def _picture(image: Tensor, size: tuple[int, int]) -> Image.Image:
    pixels = (image.clamp(0, 1) * 255).round().byte().movedim(0, -1).cpu().numpy()
    return Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST)
