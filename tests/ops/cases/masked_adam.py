import torch

from perception.ops.masked_adam import masked_adam_
from tests.ops.case import Case


def adam_case(sizes, dtype):
    shape = (1, sizes.number(1, 5), sizes.number(0, 6), 4, 5)
    parameter, grad, mean, square, scale = (sizes.uniform(*shape, low=-1, dtype=dtype) for _ in range(5))
    square, scale = square.abs(), scale.abs()
    grad[grad < sizes.option(0.0, 0.9)] = 0
    options = dict(step_size=0.1, beta1=0.9, beta2=0.99, eps=1e-8, skip_zero_grad=sizes.option(True, False))
    layout = sizes.option(torch.channels_last_3d, torch.contiguous_format)
    scaled = sizes.option(False, True)

    def update(*tensors):
        parameter, grad, mean, square, scale = (x.clone(memory_format=layout) for x in tensors)
        masked_adam_(parameter, grad, mean, square, scale=scale if scaled else None, **options)
        return parameter, mean, square

    return Case(update, (parameter, grad, mean, square, scale), 0)


CASES = {"masked_adam_": adam_case}
