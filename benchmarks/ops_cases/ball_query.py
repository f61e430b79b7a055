from ops_cases import Timing, clouds
from perception.ops.ball_query import ball_query


def timings(large: bool, device: str) -> dict[str, Timing]:
    points, centres, distances = clouds(large, device)
    return {
        f"ball_query 32 of 16384, {len(points)} x 1024 centres": Timing(
            lambda: ball_query(points, centres, 0, 0.3, 32), operations=distances
        )
    }
