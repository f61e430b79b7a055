"""Places on Earth."""

import math

import numpy as np
import pytest

from perception.geometry.geodesy import great_circle, metres_per_pixel, moved, nearest_places


def test_distances():
    # Berlin to Paris, 878 km; a quarter of a meridian; the same place.
    berlin, paris = np.array([52.5200, 13.4050]), np.array([48.8566, 2.3522])
    assert great_circle(berlin, paris) == pytest.approx(877_460, rel=1e-3)
    assert great_circle(np.array([0.0, 5.0]), np.array([90.0, -40.0])) == pytest.approx(math.pi / 2 * 6_371_008.8)
    assert great_circle(paris, paris) == 0
    # Across the date line.
    assert great_circle(np.array([0.0, 179.9]), np.array([0.0, -179.9])) == pytest.approx(22_239, rel=1e-3)


def test_neighbours():
    rng = np.random.default_rng(0)
    places = np.column_stack([rng.uniform(-89, 89, 60), rng.uniform(-180, 180, 60)])
    distances = great_circle(places[:, None], places[None])
    np.fill_diagonal(distances, np.inf)
    assert (nearest_places(places, 7) == distances.argsort(1)[:, :7]).all()
    assert nearest_places(places[:3], 7).shape == (3, 2)
    same = nearest_places(np.zeros((5, 2)), 3)
    assert all(number not in row for number, row in enumerate(same))


def test_ground_size():
    assert metres_per_pixel(0, 20) == pytest.approx(0.1492911)
    assert metres_per_pixel(60, 20) == pytest.approx(0.1492911 / 2)
    assert metres_per_pixel(47.6, 20) == pytest.approx(0.10067, rel=1e-4)
    assert metres_per_pixel(47.6, 19, scale=2) == pytest.approx(metres_per_pixel(47.6, 20))


def test_moved():
    place = moved(47.6, -122.3, 30.0, -40.0)
    assert great_circle(np.array(place), np.array([47.6, -122.3])) == pytest.approx(50, rel=1e-4)
    assert place[0] > 47.6
    assert place[1] < -122.3
