"""Where pictures lie."""

import numpy as np
import pytest

from perception.engine.errors import UserError
from perception.geometry.geodesy import great_circle
from perception.inference.retrieval.geotiff import places_of_rasters
from perception.inference.retrieval.places import (
    NAMINGS,
    Place,
    Scale,
    extent,
    places_of_names,
    places_of_table,
    with_sides,
)


@pytest.mark.parametrize(
    ("naming", "name", "latitude", "longitude"),
    [
        ("satellite", "city/satellite_41.8781_-87.6298.png", 41.8781, -87.6298),
        ("comma", "x--y,41.8781,-87.6298,.jpg", 41.8781, -87.6298),
        ("lat-lon", "@41.8781@-87.6298@.png", 41.8781, -87.6298),
        ("lat-lon", "tile7_41.8781_-87.6298.png", 41.8781, -87.6298),
        ("lon-lat", "@-87.6298@41.8781@.jpg", 41.8781, -87.6298),
        ("lat-lon", "-33.8688,151.2093.tif", -33.8688, 151.2093),
    ],
)
def test_names(naming, name, latitude, longitude):
    assert places_of_names([name], naming) == {name: Place(latitude, longitude)}


def test_web_tiles():
    """Tokyo: tile 14/14552/6451 from the north is 14/14552/9932 from the south."""
    north = NAMINGS["xyz"]("tiles/14/14552/6451.png")
    assert north == NAMINGS["tms"]("14_14552_9932.png")
    assert north.latitude == pytest.approx(35.6841, abs=1e-3)
    assert north.longitude == pytest.approx(139.7571, abs=1e-3)
    # Its side is the distance between its edges.
    edge = 360 / 2**14 / 2
    ends = [np.array([north.latitude, north.longitude + s]) for s in (-edge, edge)]
    assert north.side == pytest.approx(float(great_circle(*ends)), rel=2e-3)
    assert NAMINGS["xyz"]("2/4/0.png") is None
    assert NAMINGS["xyz"]("picture.png") is None


def test_names_without_places():
    with pytest.raises(UserError, match=r"1 of 2 pictures, such as b.png, do not say .*satellite: `satellite_LAT_LON"):
        places_of_names(["satellite_1_2.png", "b.png"], "satellite")
    with pytest.raises(UserError, match=r"139.7_35.6.png has latitude 139.7: are latitude and longitude swapped"):
        places_of_names(["satellite_139.7_35.6.png"], "satellite")


def table(tmp_path, text):
    path = tmp_path / "places.csv"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "file,lat,lon\na.png,1.5,2.5\nb/c.png,3,4\n",
        "\ufeffFile;Lat;Lon;other\r\na.png;1.5;2.5;x\r\nb/c.png;3;4;y\r\nnot_there.png;;;\r\n",
        "lat\tlon\tfile\n1.5\t2.5\ta.png\n3\t4\tb\\c.png\n",
    ],
)
def test_tables(tmp_path, text):
    found = places_of_table(table(tmp_path, text), ["a.png", "b/c.png"])
    assert found == {"a.png": Place(1.5, 2.5), "b/c.png": Place(3.0, 4.0)}


def test_sides_of_a_table(tmp_path):
    path = table(tmp_path, "file,lat,lon,metres_per_side\na.png,1,2,70.5\nb.png,1,2,\n")
    found = places_of_table(path, ["a.png", "b.png"])
    assert [place.side for place in found.values()] == [70.5, None]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,lat\na.png,1\n", "has no column lon"),
        ("file,lat,lon\nb.png,1,2\n", "has no line for 1 pictures, such as a.png"),
        ("file,lat,lon\na.png,1,2\na.png,1,2\n", r"line 3 \(a.png\): the file is listed twice"),
        ("file,lat,lon\na.png,north,2\n", "must be numbers"),
        ("file,lat,lon\na.png,,2\n", "must be numbers"),
        ("file,lat,lon\na.png,nan,2\n", "has no finite coordinates"),
        ("file,lat,lon\na.png,35,500\n", "longitude 500, which is no place on Earth"),
        ("file,lat,lon,metres_per_side\na.png,35,5,-3\n", "metres_per_side must be positive, got -3"),
        ("", "has no column file"),
    ],
)
def test_tables_that_cannot_be_right(tmp_path, text, message):
    with pytest.raises(UserError, match=message):
        places_of_table(table(tmp_path, text), ["a.png"])


def test_sizes():
    places = {"a": Place(60.0, 5.0), "b": Place(0.0, 5.0), "c": Place(0.0, 5.0, 9.0)}
    pixels = {"a": 640, "b": 512, "c": 512}
    zoomed = with_sides(places, pixels, Scale(zoom=20))
    assert zoomed["a"].side == pytest.approx(640 * 0.1492911 / 2)
    assert zoomed["b"].side == pytest.approx(512 * 0.1492911)
    assert zoomed["c"].side == 9.0
    # Resized from 640, and of doubled resolution.
    assert with_sides(places, pixels, Scale(zoom=20, original=640))["b"].side == pytest.approx(640 * 0.1492911)
    assert with_sides(places, pixels, Scale(zoom=20, factor=2))["b"].side == pytest.approx(256 * 0.1492911)
    assert with_sides(places, pixels, Scale(pixel=0.3))["b"].side == pytest.approx(153.6)
    assert with_sides(places, pixels, Scale())["b"].side is None
    assert extent({"a": Place(1.0, 2.0), "b": Place(1.0, 3.0)}).startswith("latitude 1.00000 to 1.00000, longitude 2")


def test_rasters(tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin

    def write(name, **more):
        with rasterio.open(tmp_path / name, "w", driver="GTiff", width=100, height=100, count=3, dtype="uint8", **more):
            pass
        return {name: tmp_path / name}

    # UTM zone 33 N, 0.5 m a pixel, around Berlin.
    upright = from_origin(390_000, 5_820_000, 0.5, 0.5)
    found = places_of_rasters(write("a.tif", crs="EPSG:32633", transform=upright))["a.tif"]
    assert found.latitude == pytest.approx(52.5186, abs=1e-3)
    assert found.longitude == pytest.approx(13.3795, abs=1e-3)
    assert found.side == pytest.approx(50, rel=5e-3)
    with pytest.raises(UserError, match=r"b.tif has no coordinate system"):
        places_of_rasters(write("b.tif"))
    turned = upright @ rasterio.Affine.rotation(30)
    with pytest.raises(UserError, match="turned against north"):
        places_of_rasters(write("c.tif", crs="EPSG:32633", transform=turned))
    (tmp_path / "d.tif").write_text("no raster")
    with pytest.raises(UserError, match="cannot be read as a raster"):
        places_of_rasters({"d.tif": tmp_path / "d.tif"})
