"""Label maps as files."""

import io

import numpy as np
import pytest
from PIL import Image

from perception.inference.images.label_png import LabelPngWriter


@pytest.mark.parametrize(("width", "height", "band"), [(37, 50, 7), (1, 1, 1), (300, 20, 20)])
def test_other_readers_see_labels_and_colours(width, height, band):
    labels = np.random.default_rng(0).integers(0, 256, (height, width), np.uint8)
    palette = [(10, 20, 30), (200, 100, 0)]
    file = io.BytesIO()
    writer = LabelPngWriter(file, width, height, palette)
    for top in range(0, height, band):
        writer.write(labels[top : top + band])
    writer.finish()
    image = Image.open(file)
    assert image.mode == "P"
    assert np.array_equal(image, labels)
    colours = np.zeros((256, 3), np.uint8)
    colours[:2] = palette
    assert np.array_equal(image.convert("RGB"), colours[labels])


def test_rows_have_to_fit():
    writer = LabelPngWriter(io.BytesIO(), 4, 3, [])
    with pytest.raises(ValueError, match="2 rows of 5 pixels do not fit into 3 rows of 4"):
        writer.write(np.zeros((2, 5), np.uint8))
    writer.write(np.zeros((2, 4), np.uint8))
    with pytest.raises(ValueError, match="do not fit into 1 rows"):
        writer.write(np.zeros((2, 4), np.uint8))
    with pytest.raises(ValueError, match="1 rows are missing"):
        writer.finish()
