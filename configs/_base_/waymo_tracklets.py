"""Waymo for trackers, in the layout of CenterPoint's tools."""

from perception.datasets.tracklets.waymo import WaymoTracklets

_data = dict(
    type=WaymoTracklets, data_root="data/waymo", categories=("vehicle", "pedestrian", "cyclist"), heading="waymo"
)
waymo_tracklets = dict(
    train=dict(**_data, split="train"),
    val=dict(**_data, split="val", min_first_points=1),
    test=dict(**_data, split="val", min_first_points=1),
)
waymo_cache = "data/cache/waymo_tracklets"
