"""Pictures: the image stays itself, and what is drawn is where and how it should be."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from perception.datasets.palette import default_palette
from perception.inference.images.drawing import draw, draw_label_map
from perception.inference.images.results import UNLABELLED, Detections, LabelMap, crop_masks

CLASSES = ("ship", "plane")
PALETTE = [(255, 0, 0), (0, 0, 255)]


def _detections(*boxes, labels=None, masks=None):
    count = len(boxes)
    return Detections(
        np.asarray(boxes, np.float32).reshape(count, 4),
        np.linspace(0.9, 0.5, count, dtype=np.float32),
        np.asarray(labels if labels is not None else [0] * count, np.int64),
        None if masks is None else crop_masks(masks),
    )


def _grey(height, width):
    return np.full((height, width, 3), 128, np.uint8)


def _changed(picture, background):
    return (np.asarray(picture) != background).any(-1)


def test_without_detections_the_picture_is_the_image():
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    assert np.array_equal(draw(image, _detections(), CLASSES, PALETTE), image)


@pytest.mark.parametrize("size", [128, 640, 2000])
def test_lines_and_letters_grow_with_the_image(size):
    image = _grey(size, size)
    box = np.array([0.25, 0.4, 0.75, 0.8]) * size
    picture = np.asarray(draw(image, _detections(box), CLASSES, PALETTE))
    assert np.array_equal(image, _grey(size, size))  # the caller's pixels are the caller's
    # The left side, half-way down: as thick as the image asks for, in the class's colour.
    row = picture[round(0.6 * size), : size // 2]
    line = (row == PALETTE[0]).all(-1)
    assert line.sum() == max(1, round(0.0035 * size))
    assert abs(int(np.flatnonzero(line)[0]) - round(0.25 * size)) == 0
    # The label, a band over the box, is as high as a reader needs, and inside the picture.
    label = _changed(picture, image)[: round(0.4 * size) - 2].any(1).sum()
    assert max(9, 0.02 * size) <= label <= max(16, 0.05 * size)


def test_nothing_is_drawn_away_from_box_and_label():
    image = _grey(300, 400)
    changed = _changed(draw(image, _detections([100, 150, 200, 250]), CLASSES, PALETTE), image)
    assert changed[150:251, 100:201].any()
    assert not changed[155:245, 105:195].any()  # inside of the box
    assert not changed[:120].any()
    assert not changed[255:].any()
    assert not changed[:, :97].any()
    assert not changed[:, 206:].any()


@pytest.mark.parametrize(
    "box",
    [[0, 0, 30, 20], [370, 0, 400, 20], [380, 290, 400, 300], [0, 0, 400, 300], [-50, -50, 20, 20], [399, 5, 399, 5]],
)
def test_labels_stay_inside_of_the_picture(box, monkeypatch):
    drawn = []
    rectangle = ImageDraw.ImageDraw.rectangle

    def spy(self, corners, fill=None, **options):
        if fill is not None:
            drawn.append(corners)
        rectangle(self, corners, fill=fill, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "rectangle", spy)
    draw(_grey(300, 400), _detections(box), CLASSES, PALETTE)
    ((left, top, right, bottom),) = drawn
    assert 0 <= left < right < 400
    assert 0 <= top < bottom < 300


def test_labels_avoid_each_other_and_hopeless_ones_are_left_out(monkeypatch):
    drawn = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, at, words, **options: (drawn.append(words), text(self, at, words, **options)),
    )
    draw(_grey(300, 400), _detections([100, 100, 250, 200], [100, 100, 250, 200]), CLASSES, PALETTE)
    assert len(drawn) == 2
    drawn.clear()
    draw(_grey(300, 400), _detections(*[[100, 100, 250, 200]] * 40), CLASSES, PALETTE)
    assert 4 <= len(drawn) < 40
    assert drawn[-1] == "ship 0.90"  # the best one lies on top


def test_images_smaller_than_a_label_are_drawn_all_the_same():
    picture = draw(_grey(3, 5), _detections([0, 0, 5, 3]), CLASSES, PALETTE)
    assert picture.size == (5, 3)


def test_masks_tint_what_they_cover():
    masks = np.zeros((1, 60, 60), bool)
    masks[0, 20:40, 20:40] = True
    image = _grey(60, 60)
    picture = np.asarray(draw(image, _detections([20, 20, 39, 39], labels=[1], masks=masks), CLASSES, PALETTE))
    red, green, blue = picture[30, 30].astype(int)
    assert blue > 170
    assert red == green < 100
    assert np.array_equal(picture[50, 50], (128, 128, 128))
    assert np.array_equal(image, _grey(60, 60))


def test_the_default_palette_has_no_two_alike():
    colours = np.array(default_palette(20))
    distances = np.abs(colours[:, None] - colours[None]).sum(-1) + 1000 * np.eye(20, dtype=int)
    assert distances.min() > 20
    (colour,) = default_palette(1)
    assert Image.new("RGB", (1, 1), colour).getpixel((0, 0)) == colour  # plain ints, which Pillow insists on


def test_a_rotated_box_is_drawn_where_it_is():
    image = _grey(400, 400)
    found = Detections(
        np.array([[200, 200, 160, 60, np.pi / 6]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int64)
    )
    changed = (np.asarray(draw(image, found, CLASSES, PALETTE)) == PALETTE[0]).all(-1)
    y, x = np.mgrid[:400, :400] - 199.5
    along, across = x * np.cos(np.pi / 6) + y * np.sin(np.pi / 6), y * np.cos(np.pi / 6) - x * np.sin(np.pi / 6)
    inside, outside = (abs(along) < 76) & (abs(across) < 26), (abs(along) > 86) | (abs(across) > 36)
    assert not changed[inside].any()
    assert not changed[outside & (y > -100)].any()  # above is the label
    for side in (along > 76, along < -76, across > 26, across < -26):
        assert changed[side & ~outside].sum() > 40
    # The side that the angle points to, to the lower right, is marked.
    marked = changed & (abs(across) < 6)
    assert marked[along > 70].sum() > marked[along < -70].sum()


def test_a_label_map_tints_its_classes_and_nothing_else():
    labels = np.zeros((300, 400), np.uint8)
    labels[:, 200:] = 1
    labels[:80] = UNLABELLED
    picture = np.asarray(draw_label_map(_grey(300, 400), LabelMap(labels), CLASSES, PALETTE)).astype(int)
    assert (picture[:79] == 128).all()
    red, blue = picture[90:180, 5:195], picture[90:180, 205:395]
    assert (red[..., 0] > red[..., 2] + 80).all()
    assert (blue[..., 2] > blue[..., 0] + 80).all()
    assert (picture[150, 200] < picture[150, 210]).any()  # a dark border
    # The legend, in the lower left corner, has both colours.
    legend = picture[200:, :80]
    assert (legend[..., 0] > 200).any()
    assert (legend[..., 2] > 200).any()


def test_a_crowd_gets_its_best_labels_only(monkeypatch):
    """Thousands of detections are drawn in seconds."""
    generator = np.random.default_rng(0)
    centres = generator.uniform(0, 1500, (3000, 2))
    boxes = np.hstack([centres, np.full((3000, 2), (30, 10)), generator.uniform(-1.5, 1.5, (3000, 1))]).astype(
        np.float32
    )
    words = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, at, word, **options: (words.append(word), text(self, at, word, **options)),
    )
    found = Detections(boxes, np.linspace(1, 0.1, 3000, dtype=np.float32), np.zeros(3000, np.int64))
    draw(_grey(1500, 1500), found, CLASSES, PALETTE)
    assert 100 < len(words) <= 500
