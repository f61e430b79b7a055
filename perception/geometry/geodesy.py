"""Places on Earth: distances, neighbours, and the ground size of map tiles."""

from __future__ import annotations

import math

import numpy as np
from scipy.spatial import cKDTree

EARTH_RADIUS = 6_371_008.8
"""Mean radius in metres."""

WEB_MERCATOR_PIXEL = 2 * math.pi * 6_378_137 / 256
"""Metres per pixel of a 256-pixel tile at zoom 0 on the equator, in the spherical Mercator projection of web maps."""


def great_circle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances in metres between places (..., 2) of latitude and longitude in degrees."""
    (lat_a, lon_a), (lat_b, lon_b) = (np.moveaxis(np.deg2rad(place), -1, 0) for place in (a, b))
    half = np.sin((lat_b - lat_a) / 2) ** 2 + np.cos(lat_a) * np.cos(lat_b) * np.sin((lon_b - lon_a) / 2) ** 2
    return 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.clip(half, 0, 1)))


def nearest_places(coordinates: np.ndarray, count: int) -> np.ndarray:
    """The nearest other places by great-circle distance.

    Args:
        coordinates: (N, 2) latitudes and longitudes in degrees.
        count: neighbours of each; fewer where there are fewer places.

    Returns:
        (N, min(count, N - 1)) numbers of places, nearest first.
    """
    latitude, longitude = np.deg2rad(coordinates).T
    # Chords of the unit sphere order as arcs do.
    points = np.stack([np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)], 1)
    wanted = min(count + 1, len(points))
    found = cKDTree(points).query(points, k=wanted)[1].reshape(len(points), wanted)
    others = found != np.arange(len(points))[:, None]
    # Among places that coincide, a place itself may be missing from its list: then the last one goes.
    others[others.all(1), -1] = False
    return found[others].reshape(len(points), wanted - 1)


def metres_per_pixel(latitude: float, zoom: float, scale: float = 1.0) -> float:
    """Ground size of a web map's pixel.

    Args:
        latitude: in degrees.
        zoom: of tiles of 256 pixels; may have a fraction.
        scale: 2 for pictures of doubled resolution ("@2x").
    """
    return WEB_MERCATOR_PIXEL * math.cos(math.radians(latitude)) / 2**zoom / scale


def moved(latitude: float, longitude: float, north: float, east: float) -> tuple[float, float]:
    """The place some metres further north and east, as on a plane: for distances of a tile's size."""
    degrees = math.degrees(1 / EARTH_RADIUS)
    return latitude + north * degrees, longitude + east * degrees / math.cos(math.radians(latitude))


def coordinate_fault(latitude: float, longitude: float) -> str | None:
    """What is wrong with coordinates in degrees, as the end of a sentence; None if they may be a place."""
    if not (math.isfinite(latitude) and math.isfinite(longitude)):
        return f"no finite coordinates ({latitude}, {longitude})"
    if abs(latitude) > 90:
        if abs(latitude) <= 180 and abs(longitude) <= 90:
            return f"latitude {latitude:g}: are latitude and longitude swapped?"
        return f"latitude {latitude:g}, which is no place on Earth"
    if abs(longitude) > 180:
        return f"longitude {longitude:g}, which is no place on Earth"
    return None
