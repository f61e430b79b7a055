"""nuScenes' key frames for trackers: training on ``train_track``, evaluation on ``val`` (117 278 frames)."""

from perception.datasets.tracklets.nuscenes import NuScenesTracklets

_data = dict(
    type=NuScenesTracklets,
    data_root="data/nuscenes",
    version="v1.0-trainval",
    categories=("car", "pedestrian", "truck", "trailer", "bus"),
)
# Published tests leave out what no point lies on when it is first seen.
nuscenes_tracklets = dict(
    train=dict(**_data, split="train_track"),
    val=dict(**_data, split="val", min_first_points=1),
    test=dict(**_data, split="val", min_first_points=1),
)
nuscenes_cache = "data/cache/nuscenes_tracklets"
# Metres: at two clouds a second objects move further between them.
nuscenes_margin = 1.0
