from ops_cases import Timing, clouds
from perception.ops.knn import knn


def timings(large: bool, device: str) -> dict[str, Timing]:
    points, centres, distances = clouds(large, device)
    return {
        f"knn 16 of 16384, {len(points)} x 1024 centres": Timing(lambda: knn(16, points, centres), operations=distances)
    }
