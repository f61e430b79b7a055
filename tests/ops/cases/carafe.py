from perception.ops.carafe import carafe
from tests.ops.case import Case


def carafe_case(sizes, dtype):
    batch, groups = sizes.number(0, 2), sizes.option(2, 1, 3)
    channels, kernel, scale = groups * sizes.number(1, 11), sizes.option(3, 1, 5), sizes.option(2, 1, 3)
    height, width = sizes.number(1, 9), sizes.number(1, 11)
    features = sizes.uniform(batch, channels, height, width, low=-1, dtype=dtype)
    masks = sizes.uniform(batch, groups * kernel**2, height * scale, width * scale, low=-1, dtype=dtype)
    return Case(lambda f, m: carafe(f, m, kernel, groups, scale), (features, masks), 2)


CASES = {"carafe": carafe_case}
