"""Label maps that lie on a map."""

import numpy as np
import pytest

from perception.inference.images.image_writer import Labels
from perception.inference.images.label_map_writer import LabelMapWriter
from perception.inference.images.label_tiff import LabelTiffWriter
from perception.inference.images.results import LabelMap
from perception.inference.images.sample import Georeference, GroundControl, ImageSample
from perception.inference.scan import Source
from perception.inference.writing import Files

rasterio = pytest.importorskip("rasterio")
PALETTE = [(220, 60, 60), (60, 60, 220), (9, 180, 9)]
LABELS = Labels(("ship", "plane", "car"), PALETTE)


def _map(width, height):
    labels = (np.arange(width * height).reshape(height, width) // 37 % 3).astype(np.uint8)
    labels[: height // 3] = 255
    return labels


@pytest.mark.parametrize(("width", "height"), [(70, 50), (700, 530)])
def test_rows_become_a_file_with_place_and_colours(tmp_path, width, height):
    transform = (0.4, 0.3, 400000.7, 0.3, -0.4, 5600000.1)
    labels, path = _map(width, height), tmp_path / "a.tif"
    with LabelTiffWriter(path, width, height, PALETTE, Georeference("urn:ogc:def:crs:EPSG::32633", transform)) as file:
        for top in range(0, height, 37):
            file.write(labels[top : top + 37])
    with rasterio.open(path) as file:
        assert np.array_equal(file.read(1), labels)
        assert file.crs.to_epsg() == 32633
        assert tuple(file.transform)[:6] == pytest.approx(transform, rel=1e-12)
        assert file.nodata == 255
        assert file.profile["tiled"] == (width > 256)
        assert [file.colormap(1)[label][:3] for label in range(3)] == PALETTE
    # The same rows give the same bytes.
    with LabelTiffWriter(
        tmp_path / "b.tif", width, height, PALETTE, Georeference("urn:ogc:def:crs:EPSG::32633", transform)
    ) as file:
        for top in range(0, height, 37):
            file.write(labels[top : top + 37])
    assert path.read_bytes() == (tmp_path / "b.tif").read_bytes()


def test_points_and_places_without_a_system_are_kept(tmp_path):
    points = ((0.0, 0.0, 10.0, 50.0, 0.0), (70.0, 0.0, 11.0, 50.0, 0.0), (0.0, 50.0, 10.0, 49.0, 0.0))
    with LabelTiffWriter(
        tmp_path / "a.tif", 70, 50, PALETTE, GroundControl("urn:ogc:def:crs:EPSG::4326", points)
    ) as file:
        file.write(_map(70, 50))
    with rasterio.open(tmp_path / "a.tif") as file:
        found, crs = file.gcps
        assert [(point.col, point.row, point.x, point.y, point.z) for point in found] == list(points)
        assert crs.to_epsg() == 4326
    with LabelTiffWriter(tmp_path / "b.tif", 70, 50, PALETTE, Georeference(None, (2.0, 0, 5.0, 0, -2.0, 9.0))) as file:
        file.write(_map(70, 50))
    with rasterio.open(tmp_path / "b.tif") as file:
        assert file.crs is None
        assert tuple(file.transform)[:6] == (2, 0, 5, 0, -2, 9)


def test_the_writer_of_label_maps_writes_it_beside_the_picture(tmp_path):
    labels, names = _map(70, 50), ["city.tif", "city.jp2"]
    writer, files = LabelMapWriter(names, pictures=False), Files(tmp_path)
    place = Georeference("urn:ogc:def:crs:EPSG::32633", (1.0, 0.0, 5.0, 0.0, -1.0, 9.0))
    for name, place_of in (("city.tif", place), ("city.jp2", None)):
        sample = ImageSample(np.zeros((50, 70, 3), np.uint8), 70, 50, 1, 1, georeference=place_of)
        source = Source.of_file(name, tmp_path / name, 1)
        record = {"file_name": name} | writer.write(files, source, sample, LabelMap(labels), LABELS)
        assert all(files.exists(path) for path in writer.files(record))
        assert record["pixels"] == {cls: int((labels == k).sum()) for k, cls in enumerate(LABELS.classes)}
        if place_of is not None:
            assert writer.coco_image(record)["label_map_tiff"] == "labels/city.tif"
            assert record["georeference"]["transform"] == place.transform
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["city.jp2.png", "city.tif", "city.tif.png"]
    # The next image of this name lies nowhere.
    sample = ImageSample(np.zeros((50, 70, 3), np.uint8), 70, 50, 1, 1)
    writer.write(files, Source.of_file("city.tif", tmp_path, 1), sample, LabelMap(labels), LABELS)
    assert not files.exists("labels/city.tif")


def test_a_map_that_breaks_off_leaves_nothing(tmp_path):
    class Broken(LabelMap):
        def rows(self, width, height, factor):
            yield self.labels[:10]
            raise OSError("disk full")

    writer = LabelMapWriter(["a.tif"], pictures=False)
    place = Georeference(None, (1.0, 0.0, 5.0, 0.0, -1.0, 9.0))
    sample = ImageSample(np.zeros((50, 70, 3), np.uint8), 70, 50, 1, 1, georeference=place)
    with pytest.raises(OSError, match="disk full"):
        writer.write(Files(tmp_path), Source.of_file("a.tif", tmp_path, 1), sample, Broken(_map(70, 50)), LABELS)
    assert not list((tmp_path / "labels").iterdir())
