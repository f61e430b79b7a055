from perception.ops.total_variation import total_variation_add_grad_
from tests.ops.case import Case


def variation_case(sizes, dtype):
    shape = (1, sizes.number(1, 3), sizes.number(1, 6), sizes.number(1, 5), sizes.number(1, 4))
    grid, grad = (sizes.uniform(*shape, low=-2, high=2, dtype=dtype) for _ in range(2))
    grad[grad.abs() < 1] = 0
    dense = sizes.option(False, True)

    def add(grid, grad):
        grad = grad.clone()
        total_variation_add_grad_(grid, grad, (0.1, 0.2, 0.3), dense)
        return grad

    return Case(add, (grid, grad), 0)


CASES = {"total_variation_add_grad_": variation_case}
