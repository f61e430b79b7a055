"""Average precision of rotated boxes in plain Python, after the description of PASCAL VOC and DOTA's Task1."""

import shapely


def overlap(first, second) -> float:
    """Intersection over union of two polygons given by their corners."""
    first, second = shapely.Polygon(first), shapely.Polygon(second)
    return first.intersection(second).area / first.union(second).area


def average_precision(found, truths, threshold, mode="11points") -> float:
    """Of one class.

    Args:
        found: (image, score, corners) of each detection.
        truths: {image: [(corners, difficult), ...]}; images may be missing.
    """
    total = sum(not difficult for objects in truths.values() for _, difficult in objects)
    taken, right, wrong = set(), 0, 0
    curve = []
    for image, _, corners in sorted(found, key=lambda item: -item[1]):
        best, where = -1.0, None
        for k, (wanted, _) in enumerate(truths.get(image, [])):
            value = overlap(corners, wanted)
            if value > best:
                best, where = value, k
        if best > threshold and truths[image][where][1]:
            pass
        elif best > threshold and (image, where) not in taken:
            taken.add((image, where))
            right += 1
        else:
            wrong += 1
        if right + wrong:
            curve.append((right / total, right / (right + wrong)))
    if mode == "11points":
        points = [tenth * 0.1 for tenth in range(11)]
        return sum(max((p for r, p in curve if r >= point), default=0) for point in points) / 11
    area, before = 0.0, 0.0
    for recall, _ in curve:
        area += (recall - before) * max(p for r, p in curve if r >= recall)
        before = recall
    return area
