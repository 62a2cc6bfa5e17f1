"""Distillation: equation 2 of DnC, image by image; teachers that nothing changes; who is asked about which image."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.gh.harmonizer import Harmonizer
from evensphere.methods.distill import Distillation
from evensphere.nn.backbone import resnet_small
from evensphere.nn.head import projector
from evensphere.ops.schedule import Progress

PROGRESS = Progress(0, 1, 1)


def teacher(dim: int, seed: int) -> nn.Module:
    """A network whose BatchNorm has seen something."""
    torch.manual_seed(seed)
    encoder = resnet_small(1, width=4, stages=2)
    network = nn.Sequential(encoder, projector(encoder.num_features, dim))
    network(torch.randn(32, 1, 8, 8))
    return network


def make(experts: int = 3, dim: int = 6, begun: bool = True) -> Distillation:
    """Twenty images, the experts' in turn. begun: whether the regressors have left 0, where they start."""
    teachers = [teacher(dim, k) for k in range(experts + 1)]
    torch.manual_seed(0)
    method = Distillation(resnet_small(1, width=4, stages=2), teachers, torch.arange(20) % experts, dim)
    if begun:
        for regressor in method.regressors:
            regressor[-1].reset_parameters()  # type: ignore[index]
    return method


def views(batch: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, batch, 1, 8, 8, generator=torch.Generator().manual_seed(seed)).to(dtype))


@pytest.mark.parametrize(("experts", "dim", "batch"), [(1, 4, 5), (3, 6, 8), (5, 16, 13)])
def test_the_loss_is_the_papers(experts: int, dim: int, batch: int) -> None:
    method = make(experts, dim).double()
    index = torch.randperm(20, generator=torch.Generator().manual_seed(1))[:batch]
    pair = views(batch, dtype=torch.float64)
    output = method(pair, index, PROGRESS)

    expected = torch.zeros(batch, dtype=torch.float64)
    for view in pair:
        z = method.projector(method.encoder(view))
        predicted = [regressor(z) for regressor in method.regressors]  # BatchNorm sees the whole batch
        for i in range(batch):
            k = int(index[i]) % experts
            for one, network in ((0, teacher(dim, 0)), (k + 1, teacher(dim, k + 1))):
                made = network.double().eval()(view[i : i + 1])[0]
                difference = predicted[one][i] - made / made.norm()
                expected[i] += 0.5 * (difference * difference).sum() / 2
    assert torch.allclose(output.per_sample, expected, atol=1e-12)
    assert torch.allclose(output.loss, expected.mean(), atol=1e-12)
    assert torch.allclose((output.logs["distil_base"] + output.logs["distil_expert"]) / 2, output.loss)
    for view, z in zip(pair, output.embeddings, strict=True):
        assert torch.equal(z, method.projector(method.encoder(view))), "the embedding is what the regressors are given"


def test_an_expert_is_asked_about_its_own_images_only() -> None:
    """A teacher that answers nonsense changes the loss of its own images and of no others."""
    method = make(3)
    index = torch.arange(9)
    before = method(views(9), index, PROGRESS).per_sample
    for parameter in method._teachers[2].parameters():
        parameter.fill_(float("nan"))
    after = method(views(9), index, PROGRESS).per_sample
    assert before is not None
    assert after is not None
    assert after.isnan().tolist() == [k % 3 == 1 for k in range(9)]
    assert torch.equal(after[index % 3 != 1], before[index % 3 != 1])


def test_teachers_are_frozen_and_no_part_of_the_state() -> None:
    method = make()
    assert not any("teacher" in name for name in method.state_dict())
    before = [copy.deepcopy(teacher.state_dict()) for teacher in method._teachers]
    method.train()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    first = method(views(8), torch.arange(8), PROGRESS)
    first.loss.backward()
    optimizer.step()
    method.after_step(torch.arange(8), first, PROGRESS)
    for teacher, state in zip(method._teachers, before, strict=True):
        assert not teacher.training
        assert all(torch.equal(value, state[name]) for name, value in teacher.state_dict().items())
    assert method(views(8), torch.arange(8), PROGRESS).loss < first.loss


def test_gradients_reach_the_encoder_and_the_regressors_of_the_experts_asked() -> None:
    method = make(3)
    method(views(6), torch.tensor([0, 1, 3, 4, 6, 7]), PROGRESS).loss.backward()  # nobody's of the third expert
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.encoder.parameters())
    asked = [sum(float(p.grad.abs().sum()) for p in r.parameters() if p.grad is not None) for r in method.regressors]
    assert [total > 0 for total in asked] == [True, True, True, False]
    assert all(p.grad is not None for p in method.regressors.parameters()), "for data parallelism there is a zero"


def test_gh_can_stand_on_it() -> None:
    method = make()
    harmonizer = Harmonizer(6, num_samples=20, anchors=4, warm_up=0, ramp=0, update_every=1)
    output = method(views(8), torch.arange(8), PROGRESS)
    harmonizer(output.embeddings, torch.arange(8), PROGRESS).loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.encoder.parameters())


def test_another_precision_takes_the_teachers_along() -> None:
    method = make().double()
    assert {p.dtype for t in method._teachers for p in t.parameters()} == {torch.float64}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = make()(views(8, dtype=torch.bfloat16), torch.arange(8), PROGRESS)
    assert output.loss.dtype == torch.float32
    plain = make()(views(8), torch.arange(8), PROGRESS)
    assert torch.allclose(output.loss, plain.loss, rtol=0.05)


def test_the_order_of_the_batch_does_not_matter() -> None:
    method, twin = make(), make()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    output = method(views(9), torch.arange(9), PROGRESS)
    shuffled = twin(tuple(view[order] for view in views(9)), torch.arange(9)[order], PROGRESS)
    assert output.per_sample is not None
    assert torch.allclose(shuffled.per_sample, output.per_sample[order], atol=1e-5)


def test_every_distance_begins_at_1() -> None:
    output = make(begun=False)(views(8), torch.arange(8), PROGRESS)
    assert torch.allclose(output.per_sample, torch.ones(8), atol=1e-6)


def test_targets_have_unit_length() -> None:
    base, expert = make().targets(views(8)[0], torch.arange(8) % 3)
    assert torch.allclose(torch.stack([base, expert]).norm(dim=2), torch.ones(2, 8), atol=1e-6)
    assert torch.allclose(base, normalize(teacher(6, 0).eval()(views(8)[0])), atol=1e-6)


def test_mistakes_are_refused() -> None:
    encoder = resnet_small(1, width=4, stages=2)
    with pytest.raises(InputError, match="one expert at least"):
        Distillation(encoder, [teacher(6, 0)], torch.zeros(4, dtype=torch.int64), 6)
    for owner in (torch.tensor([0, 2]), torch.tensor([-1, 0]), torch.zeros(0, dtype=torch.int64)):
        with pytest.raises(InputError, match="one of the 2 experts"):
            Distillation(encoder, [teacher(6, k) for k in range(3)], owner, 6)
    with pytest.raises(InputError, match="stream"):
        make()(views(4), None, PROGRESS)
