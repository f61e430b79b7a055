import torch

from perception.ops.masked_rmsprop import masked_rmsprop_
from tests.ops.case import Case


def rmsprop_case(sizes, dtype):
    shape = (sizes.number(0, 50), sizes.number(1, 28))
    parameter, grad, square = (sizes.uniform(*shape, low=-1, dtype=dtype) for _ in range(3))
    square = square.clamp(min=0)
    mask = sizes.uniform(shape[0]) > 0.5

    def update(parameter, grad, square):
        parameter, square = (x.clone(memory_format=torch.contiguous_format) for x in (parameter, square))
        masked_rmsprop_(parameter, grad.contiguous(), square, mask, lr=0.1)
        return parameter, square

    return Case(update, (parameter, grad, square), 0)


CASES = {"masked_rmsprop_": rmsprop_case}
