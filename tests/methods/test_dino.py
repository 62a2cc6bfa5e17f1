"""DINO: the loss against a loop from the paper and against Lightly, multi-crop, and what a step does to the teacher."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from evensphere.errors import InputError
from evensphere.methods.dino import DINO
from evensphere.nn.backbone import resnet_small
from evensphere.ops.crossview import cross_view_entropy
from evensphere.ops.schedule import Progress

LATER = Progress(50, 1, 100)
SIZES = [(2, 2, 4, 3), (2, 5, 6, 7), (3, 3, 9, 20)]  # full views, views, images, outputs


def make(**options: object) -> DINO:
    torch.manual_seed(0)
    encoder = resnet_small(1, width=4, stages=2)
    return DINO(encoder, embedding_dim=8, hidden=12, outputs=10, **options)  # type: ignore[arg-type]


def views(local: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    full = torch.randn(2, 6, 1, 8, 8, generator=generator)
    return (*full, *torch.randn(local, 6, 1, 4, 4, generator=generator))


def logits(size: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Student, teacher and centre."""
    generator = torch.Generator().manual_seed(0)
    full, *rest = size
    student, teacher = (
        torch.rand(n, *rest[1:], dtype=torch.float64, generator=generator) * 2 - 1 for n in (rest[0], full)
    )
    return student, teacher, torch.rand(rest[-1], dtype=torch.float64, generator=generator)


def softmax(values: list[float], temperature: float) -> list[float]:
    weights = [math.exp(value / temperature) for value in values]
    return [weight / sum(weights) for weight in weights]


def reference(student: Tensor, teacher: Tensor, centre: Tensor, tau_s: float, tau_t: float) -> list[float]:
    """Algorithm 1 of the paper with multi-crop, number by number: the loss of each image."""
    losses = []
    for i in range(student.shape[1]):
        terms = []
        for v in range(len(teacher)):
            q = softmax([g - c for g, c in zip(teacher[v, i].tolist(), centre.tolist(), strict=True)], tau_t)
            for w in range(len(student)):
                if v != w:
                    p = softmax(student[w, i].tolist(), tau_s)
                    terms.append(-sum(a * math.log(b) for a, b in zip(q, p, strict=True)))
        losses.append(sum(terms) / len(terms))
    return losses


@pytest.mark.parametrize("size", SIZES)
def test_the_loss_equals_the_papers_and_lightlys(size: tuple[int, int, int, int]) -> None:
    student, teacher, centre = logits(size)
    labels = torch.softmax((teacher - centre) / 0.04, -1)
    ours = cross_view_entropy(student, labels, 0.1)
    assert ours.tolist() == pytest.approx(reference(student, teacher, centre, 0.1, 0.04), rel=1e-10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what it warns of when it is imported is not ours
        lightly = pytest.importorskip("lightly.loss")
    theirs = lightly.DINOLoss(size[-1], teacher_temp=0.04, student_temp=0.1, warmup_teacher_temp_epochs=1)
    theirs.center = centre[None, None].clone()
    assert torch.allclose(ours.mean(), theirs(list(teacher), list(student), teacher_temp=0.04), rtol=1e-6)


@pytest.mark.parametrize("local", [0, 3])
def test_the_method_compares_every_student_view_with_every_other_teacher_view(local: int) -> None:
    method = make(student_temperature=0.2, teacher_temperature=(0.1, 0.1))
    method.centre.copy_(torch.linspace(-0.2, 0.2, 10))
    for parameter in method.twin.parameters():
        parameter.mul_(1.1)  # a teacher that is not the student
    output = method(views(local), None, LATER)
    student = torch.stack([method.head(method.encoder(view)) for view in views(local)])
    teacher = torch.stack([method.twin(view) for view in views()])
    expected = reference(student.double(), teacher.double(), method.centre.double(), 0.2, 0.1)
    assert output.per_sample is not None
    assert output.per_sample.tolist() == pytest.approx(expected, rel=1e-4)
    assert output.loss.item() == pytest.approx(sum(expected) / 6, rel=1e-4)
    assert len(output.embeddings) == 2, "local views are no embeddings"
    bottleneck = [method.head.bottleneck(method.encoder(view)) for view in views()]
    assert torch.allclose(torch.stack(output.embeddings), torch.stack(bottleneck))


def test_the_head_gives_cosines_with_its_directions() -> None:
    head = make().head
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    z = head.bottleneck(features)
    expected = torch.cosine_similarity(z[:, None], head.directions[None], dim=-1)
    assert torch.allclose(head(features), expected, atol=1e-6)


def test_after_a_step_the_twin_and_the_centre_have_followed() -> None:
    method = make(twin_momentum=0.9, centre_momentum=0.7)
    method.centre.fill_(0.5)
    with torch.no_grad():
        next(method.head.layers.parameters()).add_(1.0)
    before = [parameter.clone() for parameter in method.twin.parameters()]
    output = method(views(2), None, LATER)
    teacher = torch.stack([method.twin(view) for view in views()])
    assert torch.equal(method.centre, torch.full((10,), 0.5)), "the forward pass moves nothing"
    method.after_step(None, output, LATER)
    assert torch.allclose(method.centre, 0.7 * 0.5 + 0.3 * teacher.mean((0, 1)), atol=1e-6)
    share = 1 - 0.1 * (math.cos(math.pi * 0.5) + 1) / 2  # half-way through the run
    online = [*method.encoder.parameters(), *method.head.parameters()]
    for old, new, mine in zip(before, method.twin.parameters(), online, strict=True):
        assert torch.allclose(new, share * old + (1 - share) * mine, atol=1e-6)


def test_the_teacher_takes_no_gradient_and_no_local_view() -> None:
    method = make()
    seen = []
    method.twin.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape[-1]))
    method(views(3), None, LATER).loss.backward()
    assert seen == [8, 8]
    assert all(parameter.grad is None for parameter in method.twin.parameters())
    assert all(parameter.grad is not None for parameter in method.head.parameters())


def test_the_last_layer_is_frozen_in_the_first_epoch() -> None:
    for step, moves in ((9, False), (10, True)):
        method = make()
        method(views(), None, Progress(step, 10, 100)).loss.backward()
        assert (method.head.directions.grad is not None) == moves


def test_the_teachers_temperature_rises_along_a_line() -> None:
    """The authors' code: linspace(0.04, 0.07, 30), then 0.07."""
    method = make(teacher_temperature=(0.04, 0.07), teacher_warm_up="30 epochs")
    expected = [*torch.linspace(0.04, 0.07, 30).tolist(), 0.07, 0.07]
    assert [method.sharpness(Progress(5 * e, 5, 500)) for e in range(32)] == pytest.approx(expected, abs=1e-6)
    assert make(teacher_warm_up=0).sharpness(Progress(0, 5, 500)) == 0.07


@pytest.mark.parametrize(
    "options",
    [
        {"student_temperature": 0.0},
        {"teacher_temperature": (0.04, -0.1)},
        {"centre_momentum": 1.1},
        {"twin_momentum": -0.1},
        {"teacher_warm_up": "long"},
    ],
)
def test_mistakes_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        make(**options)
    with pytest.raises(InputError, match="outputs"):
        DINO(resnet_small(1, width=4, stages=2), outputs=1)
