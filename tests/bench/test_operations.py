"""Operations are counted in both passes; views of memory are none."""

from __future__ import annotations

import torch

from evensphere.bench.operations import count_flop, count_operations


def test_forward_operations_and_no_views() -> None:
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    assert count_operations(lambda: (a @ b.T).relu().sum()) == 3
    assert count_operations(lambda: a.T.view(4, 3)[1:].detach().unsqueeze(0).expand(5, 3, 3)) == 0
    assert count_operations(lambda: torch._foreach_add_([a, b], 1.0)) == 1


def test_the_backward_pass_counts() -> None:
    x = torch.randn(5, requires_grad=True)
    # cos and sum; then the seed of ones, sin of x, its negative, and the product
    assert count_operations(lambda: torch.autograd.grad(x.cos().sum(), x)) == 6


def test_work_inside_a_loop_is_counted_as_often_as_it_is_done() -> None:
    x = torch.randn(5)

    def task(times: int) -> None:
        for _ in range(times):
            x.exp()

    assert [count_operations(lambda times=times: task(times)) for times in (0, 1, 7)] == [0, 1, 7]  # type: ignore[misc]


def test_flop_of_a_product_and_its_gradient() -> None:
    a, b = torch.randn(3, 4, requires_grad=True), torch.randn(4, 5, requires_grad=True)
    product = 2 * 3 * 4 * 5
    assert count_flop(lambda: a @ b) == product
    assert count_flop(lambda: torch.autograd.grad((a @ b).sum(), (a, b))) == 3 * product
