from perception.ops.hash_grid import hash_grid, hash_grid_layout
from tests.ops.case import Case


def hash_case(sizes, dtype):
    layout = hash_grid_layout(sizes.number(1, 4), sizes.option(5, 16), sizes.option(1.6, 2.0), 8)
    # Inside cells: on their borders an interpolation has no derivative.
    positions = sizes.uniform(sizes.number(0, 40), 3, low=0.01, high=0.99, dtype=dtype)
    params = sizes.uniform(layout.num_entries, sizes.number(1, 4), low=-1, dtype=dtype)
    return Case(lambda x, p: hash_grid(x, p, layout), (positions, params), 2)


CASES = {"hash_grid": hash_case}
