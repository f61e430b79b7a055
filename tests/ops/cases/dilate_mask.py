from perception.ops.dilate_mask import dilate_mask
from tests.ops.case import Case


def mask_case(sizes, dtype):
    values = sizes.uniform(*(sizes.number(0, 9) for _ in range(3)), dtype=dtype)
    times = sizes.option(1, 0, 2, 6)
    return Case(lambda values: dilate_mask(values > 0.97, times).to(values.dtype), (values,), 0)


CASES = {"dilate_mask": mask_case}
