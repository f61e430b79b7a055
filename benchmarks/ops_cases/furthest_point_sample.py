from ops_cases import Timing, clouds
from perception.ops.furthest_point_sample import furthest_point_sample


def timings(large: bool, device: str) -> dict[str, Timing]:
    points, _, distances = clouds(large, device)
    return {
        f"furthest_point_sample {len(points)} x 16384 to 1024": Timing(
            lambda: furthest_point_sample(points, 1024), operations=distances, compiles=False
        )
    }
