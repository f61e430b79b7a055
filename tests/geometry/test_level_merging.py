"""Detections of windows and levels: parts give way to the whole."""

import torch

from perception.geometry.level_merging import without_parts


def test_parts_give_way_to_what_holds_them_whatever_their_scores():
    whole = [100.0, 100, 200, 20, 0.3, 0.5]
    part = [100 + 40 * 0.955, 100 + 40 * 0.2955, 100, 20, 0.3, 0.9]
    beside = [100.0, 130, 100, 20, 0.3, 0.8]  # parallel, hardly touching
    crossing = [100.0, 100, 20, 200, 0.3, 0.7]  # most of it lies elsewhere
    detections = torch.tensor([part, whole, beside, crossing])
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]):
        for cut, expected in (
            ([True, False, True, True], [False, True, True, True]),
            ([False, False, False, False], [True] * 4),  # of several whole ones this is not the judge
            ([True, True, True, True], [True] * 4),  # nor of several parts
        ):
            found = without_parts(detections[order], torch.tensor(cut)[order])
            assert found.tolist() == [expected[k] for k in order]
    assert without_parts(torch.zeros(0, 6), torch.zeros(0, dtype=torch.bool)).shape == (0,)
