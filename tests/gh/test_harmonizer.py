"""The Harmonizer: its schedule, its state, and its behaviour in somebody else's loop."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from evensphere.errors import InputError
from evensphere.gh.anchors import geometric_uniform
from evensphere.gh.harmonizer import Harmonizer, auto_num_anchors, harmonization_loss
from evensphere.gh.population import ExactPopulation
from evensphere.ops.schedule import Progress
from evensphere.ops.sinkhorn import Pace, transport_plan

N, D, K, B = 60, 16, 8, 12


def views(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    base = torch.randn(B, D, generator=generator)
    return base + 0.1 * torch.randn(B, D, generator=generator), base.clone()


def index_of(step: int) -> Tensor:
    order = torch.randperm(N, generator=torch.Generator().manual_seed(step // 5))
    return order[step % 5 * B : step % 5 * B + B]


def run(harmonizer: Harmonizer, steps: range) -> list[float]:
    """Losses of a foreign loop."""
    return [harmonizer(views(step), index_of(step)).loss.item() for step in steps]


def test_three_lines_in_a_foreign_loop() -> None:
    """One epoch is 5 steps of 12 of the 60 images, found out by the harmonizer itself."""
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up="2 epochs", ramp="2 epochs", update_every="1 epoch")
    harmonies = [harmonizer(views(step), index_of(step)) for step in range(25)]
    weights = [round(harmony.logs["gh_weight"].item(), 6) for harmony in harmonies]
    assert weights == [0.0] * 10 + [0.5] * 5 + [1.0] * 10
    assert all(harmony.loss == 0 for harmony in harmonies[:10])
    assert all(harmony.loss > 0 for harmony in harmonies[10:])
    assert not torch.allclose(harmonizer.prior, torch.full((K,), 1 / K)), "pi has been learnt"
    assert harmonizer.prior.sum().item() == pytest.approx(1)


def test_shares_of_a_foreign_run_need_its_length() -> None:
    harmonizer = Harmonizer(D, N, anchors=K, warm_up=0.4, ramp=0, update_every="1 epoch", total_steps=25)
    weights = [harmonizer(views(step), index_of(step)).logs["gh_weight"].item() for step in range(25)]
    assert weights == [0.0] * 10 + [1.0] * 15, "of 25 steps, which are 5 epochs"
    with pytest.raises(InputError, match=r"share of a run of unknown length; .* or pass total_steps"):
        Harmonizer(D, N, anchors=K, ramp=0, update_every=1)(views(0), index_of(0))


def test_an_index_of_classes_is_refused_at_the_first_step() -> None:
    harmonizer = Harmonizer(D, N, anchors=K, warm_up=0, ramp=0, update_every=1)
    with pytest.raises(InputError, match="3 different numbers for 12 images"):
        harmonizer(views(0), torch.arange(B) % 3)
    harmonizer(views(0), torch.arange(B) // 2)  # images that were drawn twice are nobody's mistake
    few = Harmonizer(D, 4, anchors=K, warm_up=0, ramp=0, update_every=1)
    few(views(0), torch.arange(B) % 4)


def test_it_follows_its_embeddings_to_their_device() -> None:
    harmonizer = Harmonizer(D, N, anchors=K, warm_up=0, ramp=0, update_every=1)
    harmonizer.to("meta")
    assert harmonizer.prior.is_meta
    moved = []
    harmonizer.to = lambda device: moved.append(device)  # type: ignore[method-assign,assignment]
    harmonizer._own_progress(views(0)[0], None)
    assert moved == [torch.device("cpu")]


def test_the_weighted_loss_is_the_loss_of_the_paper() -> None:
    prior = torch.rand(K, generator=torch.Generator().manual_seed(0))
    harmonizer = Harmonizer(D, anchors=K, prior=prior, weight=3.0, warm_up=0, ramp=0, update_every=1, tolerance=0.0)
    z1, z2 = views(0)
    expected = 3 * harmonization_loss(z1, z2, geometric_uniform(K, D), prior)
    assert harmonizer((z1, z2)).loss.item() == pytest.approx(expected.item(), rel=1e-6)


def test_more_than_two_views_average_over_the_others() -> None:
    harmonizer = Harmonizer(D, anchors=K, prior="uniform", warm_up=0, ramp=0, update_every=1)
    z1, z2 = views(0)
    twice = harmonizer((z1, z2)).loss.item()
    assert harmonizer((z1, z2, z1, z2)).loss.item() == pytest.approx(
        (harmonizer((z1, z1)).loss.item() + harmonizer((z2, z2)).loss.item()) / 6 + twice * 4 / 6, rel=1e-3
    )


@pytest.mark.parametrize("dim", [64, 512, 8192])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_embeddings_of_any_width_and_any_number_of_views(dim: int, count: int) -> None:
    """The loss is the mean over ordered pairs of views of the cross-entropy between the labels of one and the
    prediction of the other, twice: what the paper's two directions sum to."""
    z = torch.randn(count, B, dim, generator=torch.Generator().manual_seed(0)).requires_grad_()
    harmonizer = Harmonizer(dim, num_samples=N, anchors=100, warm_up=0, ramp=0, update_every=1, tolerance=0.0)
    harmony = harmonizer(tuple(z), torch.arange(B))
    scores = torch.nn.functional.normalize(z.detach() @ harmonizer.anchors.T, dim=-1)
    labels = [transport_plan(s, None, 0.05, 300, 0.0).assignment for s in scores]
    pairs = [
        -(labels[a] * torch.log_softmax(scores[b] / 0.1, -1)).sum(-1).mean()
        for a in range(count)
        for b in range(count)
        if a != b
    ]
    assert harmony.loss.item() == pytest.approx(2 * torch.stack(pairs).mean().item(), rel=1e-4)
    harmony.loss.backward()
    assert z.grad is not None
    assert (z.grad.flatten(1).abs().sum(1) > 0).all()
    assert harmonizer.prior.sum().item() == pytest.approx(1, abs=1e-5)


def test_pi_is_recomputed_at_the_end_of_the_warm_up_and_then_every_so_often() -> None:
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up="3 epochs", ramp=0, update_every="2 epochs")
    recomputed = [step for step in range(50) if harmonizer.recomputes_prior(Progress(step, 5, 50))]
    assert recomputed == [14, *range(20, 25), *range(30, 35), *range(40, 45)]
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up=0, ramp=0, update_every="3 epochs")
    recomputed = [step for step in range(20) if harmonizer.recomputes_prior(Progress(step, 5, 20))]
    assert recomputed == [*range(5), *range(10, 15)]
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up=4, ramp=0, update_every=3)
    assert [step for step in range(15) if harmonizer.recomputes_prior(Progress(step, 5))] == [3, 6, 9, 12]


def test_pi_is_estimated_late_where_the_last_step_of_the_warm_up_was_not_taken() -> None:
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up="2 epochs", ramp=0, update_every="20 epochs")
    uniform = harmonizer.prior.clone()
    for step in range(9):
        harmonizer.after_step(views(step), index_of(step), Progress(step, 5, 200))
    assert torch.equal(harmonizer.prior, uniform)
    resumed = Harmonizer(D, num_samples=N, anchors=K, warm_up="2 epochs", ramp=0, update_every="20 epochs")
    resumed.load_state_dict(harmonizer.state_dict())
    for one in (harmonizer, resumed):
        one.after_step(views(10), index_of(10), Progress(10, 5, 200))  # step 9 was skipped
        assert one.population is not None
        assert torch.equal(one.prior, late := one.population.estimate())
        one.after_step(views(11), index_of(11), Progress(11, 5, 200))
        assert torch.equal(one.prior, late), "once is enough"
    assert not torch.equal(late, uniform)


@pytest.mark.parametrize("recomputed", [3, "1 epoch"])
def test_without_a_warm_up_nothing_is_overdue(recomputed: int | str) -> None:
    """In steps, pi is recomputed when they are over and not after the first batch; in epochs, in the first one too."""
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up=0, ramp=0, update_every=recomputed)
    uniform = harmonizer.prior.clone()
    for step in range(3):
        assert torch.equal(harmonizer.prior, uniform) == (step == 0 or recomputed == 3)
        harmonizer(views(step), index_of(step), Progress(step, 5))
        harmonizer.after_step(views(step), index_of(step), Progress(step, 5))
    assert not torch.equal(harmonizer.prior, uniform)


@pytest.mark.parametrize(("given", "before_and_after"), [(0, (0.0, 0.0)), (1, (1.0, 1.0)), (0.5, (0.5, 0.5))])
def test_one_momentum_is_that_of_both_stages(given: float, before_and_after: tuple[float, float]) -> None:
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, momentum=given)
    assert isinstance(harmonizer.population, ExactPopulation)
    assert harmonizer.population.momentum == before_and_after


def test_a_floor_is_a_number_of_images_however_pi_is_kept() -> None:
    exact, streaming = (
        Harmonizer(2, 1000, 4, population=kind, floor=100.0, momentum=0.0) for kind in ("exact", "streaming")
    )
    scores = torch.eye(4)[torch.arange(1000) // 950]
    for harmonizer in (exact, streaming):
        assert harmonizer.population is not None
        harmonizer.population.update(torch.arange(1000), scores, warming_up=True)
        expected = torch.tensor([1050.0, 150.0, 100.0, 100.0]) / 1400
        assert torch.allclose(harmonizer.population.estimate(), expected)


def test_without_a_warm_up_it_starts_from_equal_shares() -> None:
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up=0, ramp=1, update_every=1)
    assert torch.equal(harmonizer.prior, torch.full((K,), 1 / K))
    assert all(loss > 0 for loss in run(harmonizer, range(3)))


@pytest.mark.parametrize("population", ["exact", "streaming"])
def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(population: Literal["exact", "streaming"]) -> None:
    def make() -> Harmonizer:
        exact = population == "exact"
        return Harmonizer(
            D, N if exact else None, K, population=population, warm_up=7, ramp=5, update_every=2, steps_per_epoch=5
        )

    unbroken, stopped, resumed = make(), make(), make()
    expected = run(unbroken, range(30))
    before = run(stopped, range(13))
    resumed.load_state_dict(stopped.state_dict())
    assert before + run(resumed, range(13, 30)) == expected
    assert torch.equal(resumed.prior, unbroken.prior)


@pytest.mark.parametrize("population", ["exact", "streaming"])
def test_images_of_weight_zero_have_no_part_in_pi(population: Literal["exact", "streaming"]) -> None:
    """And those of equal weight have equal parts, whatever the weight."""
    weights = torch.where(torch.arange(N) < N // 2, 0.5, 0.0)
    options = {"anchors": K, "population": population, "warm_up": 5, "ramp": 0, "update_every": 1, "floor": 0.0}
    weighted = Harmonizer(D, N, sample_weights=weights, **options)  # type: ignore[arg-type]
    plain = Harmonizer(D, N, **options)  # type: ignore[arg-type]
    for step in range(5):
        index = index_of(step)
        heavy = index < N // 2
        weighted.after_step(views(step), index, Progress(step, 5))
        plain.after_step([z[heavy] for z in views(step)], index[heavy], Progress(step, 5))
    if population == "exact":
        assert torch.allclose(weighted.prior, plain.prior)
    else:  # a batch counts by the weight in it, and here the batches hold different numbers of heavy images
        assert torch.allclose(weighted.prior, plain.prior, atol=0.05)
        assert not torch.allclose(weighted.prior, Harmonizer(D, N, K).prior, atol=0.05)


@pytest.mark.parametrize(
    "weights", [torch.ones(N - 1), torch.ones(N, 1), -torch.ones(N), torch.zeros(N), torch.full((N,), torch.nan)]
)
def test_impossible_weights_are_refused(weights: Tensor) -> None:
    with pytest.raises(InputError, match="sample_weights"):
        Harmonizer(D, num_samples=N, anchors=K, sample_weights=weights)


def test_a_memory_of_half_the_size() -> None:
    full, half = (Harmonizer(D, N, K, warm_up=9, memory=memory) for memory in ("float32", "bfloat16"))
    assert half.population.memory.values.element_size() * 2 == full.population.memory.values.element_size()  # type: ignore[union-attr]


# --- where the host must not wait -------------------------------------------------------------------------------------


def at_a_pace(harmonizer: Harmonizer) -> Harmonizer:
    """As on a GPU: no error is read inside the step that it belongs to."""
    harmonizer.pace = Pace(harmonizer.max_iterations, harmonizer.tolerance, waits=())
    return harmonizer


def test_at_a_pace_it_is_the_same_loss_and_goes_on_exactly() -> None:
    def make() -> Harmonizer:
        return at_a_pace(Harmonizer(D, N, K, warm_up=5, ramp=0, update_every=5, steps_per_epoch=5))

    unbroken, stopped, resumed = make(), make(), make()
    expected = run(unbroken, range(40))
    before = run(stopped, range(22))
    resumed.load_state_dict(stopped.state_dict())
    assert before + run(resumed, range(22, 40)) == expected
    assert resumed.pace.state_dict() == unbroken.pace.state_dict()
    assert unbroken.pace.iterations != make().pace.iterations, "the pace has followed the errors"
    tested = run(Harmonizer(D, N, K, warm_up=5, ramp=0, update_every=5, steps_per_epoch=5), range(40))
    assert expected == pytest.approx(tested, rel=1e-2)


def test_only_a_step_that_was_taken_moves_the_pace() -> None:
    harmonizer = at_a_pace(Harmonizer(D, num_samples=N, anchors=K, warm_up=0, ramp=0))
    for _ in range(3):  # an optimiser that looks at the loss three times in a step
        harmonizer(views(0), index_of(0), Progress(0, 5))
    assert harmonizer.pace.state_dict()["under_way"] == []
    harmonizer.after_step(views(0), index_of(0), Progress(0, 5))
    harmonizer.after_step(views(0), index_of(0), Progress(1, 5))
    assert len(harmonizer.pace.state_dict()["under_way"]) == 1


def test_a_branch_that_goes_back_sets_its_pace_anew() -> None:
    """Its first checkpoint has none (see `branch_checkpoint`)."""
    harmonizer = at_a_pace(Harmonizer(D, N, K, warm_up=5, ramp=0, update_every=5, steps_per_epoch=5))
    run(harmonizer, range(5))
    state = harmonizer.state_dict()
    del state["_extra_state"]["pace"]
    first = run(harmonizer, range(5, 30))
    harmonizer(views(30), index_of(30), Progress(30, 5))  # a step that is not taken
    assert harmonizer.pace.iterations != Pace(300, 1e-4).iterations
    harmonizer.load_state_dict(state)
    assert harmonizer.pace.state_dict() == Pace(300, 1e-4).state_dict()
    assert run(harmonizer, range(5, 30)) == first
    harmonizer(views(30), index_of(30), Progress(30, 5))
    harmonizer.load_state_dict(state)
    harmonizer.after_step(views(4), index_of(4), Progress(4, 5))
    assert harmonizer.pace.state_dict() == Pace(300, 1e-4).state_dict(), "and not by a step that is gone"


class CountOperations(TorchDispatchMode):
    """Operations of the framework that compute something; views of tensors are free."""

    VIEWS = ("view", "slice", "select", "unbind", "detach", "expand", "t", "transpose", "permute", "unsqueeze", "alias")

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.overloadpacket.__name__.strip("_").removesuffix("_unsafe") not in self.VIEWS
        return func(*args, **(kwargs or {}))


def operations_of_a_step(population: Literal["exact", "streaming"], samples: int, batch: int, iterations: int) -> int:
    """In forward, backward and after_step, of 2 views, 100 anchors, pi recomputed after each step."""
    harmonizer = at_a_pace(
        Harmonizer(
            *(128, samples, 100),
            **{"population": population, "warm_up": 0, "ramp": 0, "update_every": 1, "steps_per_epoch": 5},  # type: ignore[arg-type]
            max_iterations=iterations,
        )
    )
    z1, z2 = (torch.randn(batch, 128).requires_grad_() for _ in range(2))
    index = torch.randperm(samples)[:batch]
    counted = CountOperations()  # type: ignore[no-untyped-call]
    with counted:
        harmonizer((z1, z2), index, Progress(0, 5)).loss.backward()
        harmonizer.after_step((z1, z2), index, Progress(0, 5))
    return counted.count


@pytest.mark.parametrize(("population", "most"), [("exact", 265), ("streaming", 260)])
def test_a_step_takes_the_same_number_of_operations_whatever_the_size(
    population: Literal["exact", "streaming"], most: int
) -> None:
    """10 iterations of Sinkhorn, backward pass included. (The reference code: some 2,700. On a CPU, batches of more
    than 2^19 numbers, 5,000 rows of 100, are gone through in blocks, each with operations of its own.)"""
    small = operations_of_a_step(population, samples=100, batch=16, iterations=10)
    assert small == operations_of_a_step(population, samples=20_000, batch=16, iterations=10)
    assert small == operations_of_a_step(population, samples=20_000, batch=4096, iterations=10)
    assert small <= most
    fewer, more = (operations_of_a_step(population, 100, 16, iterations) for iterations in (8, 9))
    assert more - fewer == 2 * 5, "of two views, five each"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("population", ["exact", "streaming"])
def test_on_a_gpu_a_step_never_waits(population: Literal["exact", "streaming"]) -> None:
    harmonizer = Harmonizer(D, N, K, population=population, warm_up=0, ramp=0, update_every=1, queue=20).cuda()
    steps = [(tuple(z.cuda() for z in views(step)), index_of(step)) for step in range(30)]
    harmonizer(*steps[0], Progress(0, 5))
    harmonizer.after_step(*steps[0], Progress(0, 5))  # the memory moves to the device once
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(1, 30):
            harmonizer(*steps[step], Progress(step, 5))
            harmonizer.after_step(*steps[step], Progress(step, 5))
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_queue_lets_the_latest_scores_take_part_in_the_transport() -> None:
    """The labels are the first rows of the plan of the batch and the 20 scores before it, oldest dropped first."""
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, prior="uniform", warm_up=0, ramp=0, queue=20, tolerance=0.0)
    progress = Progress(0)
    seen: list[Tensor] = []
    for step in range(3):
        z1, z2 = (z.double() for z in views(step))
        now = torch.stack([normalize(z @ harmonizer.anchors.double().T, dim=1) for z in (z1, z2)])
        rows = torch.cat([now, torch.stack(seen[-20:]).expand(2, -1, -1)], dim=1) if seen else now
        labels = transport_plan(rows, None, tolerance=0.0).assignment[:, :B]
        log_p = (now / 0.1).log_softmax(-1)
        expected = -(labels[1] * log_p[0] + labels[0] * log_p[1]).sum(-1).mean()
        loss = harmonizer((z1, z2), index_of(step), progress).loss
        assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
        harmonizer.after_step((z1, z2), index_of(step), progress)
        seen += [*now[0], *now[1]]


def test_a_queue_is_saved_and_loaded() -> None:
    options = {"dim": D, "num_samples": N, "anchors": K, "warm_up": 2, "ramp": 0, "queue": 30}
    first, second = (Harmonizer(**options) for _ in range(2))  # type: ignore[arg-type]
    run(first, range(4))
    second.load_state_dict(first.state_dict())
    assert run(first, range(4, 7)) == run(second, range(4, 7))
    assert not any(len(buffer) == 30 for buffer in first.buffers())


def test_evaluation_mode_changes_nothing() -> None:
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up=0, ramp=0, update_every=1).eval()
    first = harmonizer(views(0), index_of(0)).loss
    run(harmonizer, range(5))
    assert torch.equal(harmonizer(views(0), index_of(0)).loss, first)
    assert harmonizer.steps_taken == 0
    assert harmonizer.steps_per_epoch is None, "batches of an evaluation say nothing of training's"


def test_with_progress_the_forward_pass_leaves_no_trace() -> None:
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up=0.5, ramp=0.1)
    progress = Progress(30, 5, 50)
    first = harmonizer(views(0), index_of(0), progress).loss
    harmonizer(views(1), index_of(1), progress)
    assert torch.equal(harmonizer(views(0), index_of(0), progress).loss, first)
    assert harmonizer.population is not None
    assert not harmonizer.population.state_dict()["seen"].any()
    harmonizer.after_step(views(0), index_of(0), progress)
    assert harmonizer.population.state_dict()["seen"].sum() == B


def test_the_memory_is_state_but_neither_parameter_nor_buffer() -> None:
    harmonizer = Harmonizer(D, num_samples=N, anchors=K)
    assert not list(harmonizer.parameters())
    assert {name for name, _ in harmonizer.named_buffers()} == {"anchors", "prior"}


def test_gradients_reach_the_embeddings_only_through_the_prediction() -> None:
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up=0, ramp=0, update_every=1)
    z1, z2 = (view.requires_grad_() for view in views(0))
    harmonizer((z1, z2), index_of(0)).loss.backward()
    assert z1.grad is not None
    assert z2.grad is not None
    assert z1.grad.abs().sum() > 0
    assert z2.grad.abs().sum() > 0


def test_autocast_does_not_lower_the_precision() -> None:
    harmonizer = Harmonizer(D, num_samples=N, anchors=K, warm_up=0, ramp=0, update_every=1).eval()
    expected = harmonizer(views(0), index_of(0)).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(harmonizer(views(0), index_of(0)).loss, expected)


@pytest.mark.parametrize(
    ("samples", "dim", "expected"),
    [(10_847, 128, 100), (350, 128, 7), (2640, 128, 52), (10**6, 64, 65), (None, 32, 33), (20, 128, 2)],
)
def test_the_automatic_number_of_anchors(samples: int | None, dim: int, expected: int) -> None:
    assert auto_num_anchors(samples, dim) == expected
    assert len(Harmonizer(dim, samples, "auto", prior="uniform").anchors) == expected


@pytest.mark.parametrize(
    "options",
    [
        {"anchors": 1},
        {"anchors": torch.eye(3)},
        {"num_samples": None},
        {"num_samples": None, "population": "streaming", "momentum": (0.9, 0.999)},
        {"prior": torch.ones(K + 1)},
        {"prior": -torch.ones(K)},
        {"prior": torch.zeros(K)},
        {"weight": 0.0},
        {"prediction_temperature": 0.0},
        {"sinkhorn_temperature": -0.05},
        {"max_iterations": 0},
        {"momentum": (0.9, 1.5)},
        {"momentum": -0.1},
        {"floor": -1.0},
        {"queue": -1},
        {"warm_up": "soon"},
    ],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Harmonizer(**{"dim": D, "num_samples": N, "anchors": K} | options)  # type: ignore[arg-type]


def test_one_view_is_refused() -> None:
    with pytest.raises(InputError, match="at least 2 views"):
        Harmonizer(D, num_samples=N, anchors=K)((views(0)[0],), index_of(0))


def test_epochs_that_nobody_defined_are_refused() -> None:
    harmonizer = Harmonizer(D, anchors=K, population="streaming", warm_up="2 epochs")
    with pytest.raises(InputError, match="what an epoch is"):
        harmonizer(views(0))
    harmonizer = Harmonizer(D, anchors=K, population="streaming", warm_up=0.5, steps_per_epoch=5)
    with pytest.raises(InputError, match="unknown length"):
        harmonizer(views(0))
