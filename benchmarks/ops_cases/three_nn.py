from ops_cases import Timing, clouds
from perception.ops.three_nn import three_nn


def timings(large: bool, device: str) -> dict[str, Timing]:
    points, some, distances = clouds(large, device)
    return {f"three_nn {len(points)} x 16384 among 1024": Timing(lambda: three_nn(points, some), operations=distances)}
