import torch

from perception.ops.sparse_total_variation import sparse_total_variation_add_grad_
from tests.ops.case import Case


def variation_case(sizes, dtype):
    shape = tuple(sizes.number(1, 7) for _ in range(3))
    active = sizes.uniform(*shape) > 0.4
    links = torch.where(active, active.reshape(-1).cumsum(0).view(shape) - 1, -1).int()
    table = sizes.uniform(int(active.sum()), sizes.number(1, 27), low=-1, dtype=dtype)
    cells = sizes.integers(links.numel(), sizes.number(0, 200))
    edges, legacy = sizes.option((True, False), (False, False), (False, True), (True, True))

    def add(table, grad):
        grad = grad.clone(memory_format=torch.contiguous_format)
        touched = torch.zeros(len(table), dtype=torch.bool, device=table.device)
        sparse_total_variation_add_grad_(links, table, grad, touched, cells, 100.0, level_edges=edges, legacy=legacy)
        return grad, touched

    return Case(add, (table, torch.zeros_like(table)), 0)


CASES = {"sparse_total_variation_add_grad_": variation_case}
