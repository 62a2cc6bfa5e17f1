"""What every method promises, with and without GH. A new line in METHODS is tested here without a word more."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.contract import steps
from tests.contract.sizes import SETTINGS
from tests.contract.steps import PROGRESS
from torch import Tensor

from evensphere.data.augment import VIEWS, Views
from evensphere.data.digits import digits
from evensphere.engine.checkpoint import load_encoder
from evensphere.engine.evaluate import extract
from evensphere.gh.harmonizer import Harmonizer, NoHarmonizer
from evensphere.methods import METHOD_INFO, METHODS
from evensphere.methods.base import Method, Output
from evensphere.nn.backbone import resnet_small
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.recipes.scoring import evaluate
from evensphere.rundir import RunDir

B, D = 16, 24
INDEX = torch.arange(B)

# Where the recipe's learning rate, 0.3, does not suit a method: MoCo's paper has 0.0075 for this batch.
RATES = {
    **{"moco": 0.06, "byol": 0.03, "simsiam": 0.06, "moco-v3": 0.06, "nnclr": 0.06},
    **{"swav": 0.03, "vicreg": 0.01, "pmsn": 0.1},
}

# GH's weight where the method's own gradient is a tenth of SimCLR's, measured against GH's at the encoder.
WEIGHTS = {"byol": 0.1, "simsiam": 0.1}


def make(name: str, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    encoder = resnet_small(1, width=8, stages=2)
    built: Method = build("method", Part(name, embedding_dim=D), encoder=encoder, num_samples=B)
    return built


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    return make(request.param)


def make_harmonizer() -> Harmonizer:
    return Harmonizer(D, num_samples=B, anchors=6, warm_up=0, ramp=0, update_every=1)


@pytest.fixture(params=["no GH", "GH"])
def harmonizer(request: pytest.FixtureRequest) -> Harmonizer | NoHarmonizer:
    return NoHarmonizer() if request.param == "no GH" else make_harmonizer()


def full_views(count: int = 2, seed: int = 0) -> tuple[Tensor, ...]:
    return tuple(torch.randn(count, B, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))


def local_views(count: int) -> tuple[Tensor, ...]:
    return tuple(torch.randn(count, B, 1, 4, 4, generator=torch.Generator().manual_seed(1)))


def take_steps(method: Method, harmonizer: Harmonizer | NoHarmonizer, first: int, count: int) -> list[Tensor]:
    return steps.take_steps(method, harmonizer, lambda step: full_views(seed=step), range(first, first + count))


def leaves(state: object, path: str = "") -> dict[str, object]:
    """Everything in a state dict, by where it is, extra state included. Tensors are copied."""
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in leaves(value, f"{path}/{key}").items()}
    return {path: state.clone() if isinstance(state, Tensor) else state}


def same(states: tuple[dict[str, object], dict[str, object]], but: tuple[str, ...] = ()) -> bool:
    """Whether two states are equal to the last bit, but for leaves with one of these words in their name."""
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, other) if isinstance(value, Tensor) and isinstance(other, Tensor) else value == other
        for (name, value), other in zip(states[0].items(), states[1].values(), strict=True)
        if not any(word in name for word in but)
    )


BATCH_NORM = ("running_", "num_batches")  # what a forward pass in training mode may move

# --- one forward pass -------------------------------------------------------------------------------------------------


def test_shapes_are_what_the_harmonizer_needs(method: Method) -> None:
    output = method(full_views(), INDEX, PROGRESS)
    assert isinstance(output, Output)
    assert output.loss.shape == ()
    assert len(output.embeddings) == 2
    assert all(z.shape == (B, method.embedding_dim) and z.requires_grad for z in output.embeddings)
    assert "ssl" in output.logs
    assert not any(value.requires_grad or value.numel() != 1 for value in output.logs.values())
    assert (output.per_sample is not None) == method.per_sample
    if output.per_sample is not None:
        assert output.per_sample.shape == (B,)
        (gradient,) = torch.autograd.grad(output.per_sample.mean(), next(method.encoder.parameters()))
        assert gradient.any(), "an optimiser may weigh images"
    method.encoder.eval()
    assert method.encoder(full_views()[0]).shape == (B, method.encoder.num_features)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(("full", "local"), [(2, 3), (4, 0), (3, 2)])
def test_more_views_are_used_where_the_method_says_so(name: str, full: int, local: int) -> None:
    method = make(name)
    if (full != 2 and method.full_views == 2) or (local and not method.local_views):
        return  # refused before training (tests/recipes/test_run.py)
    views = tuple(view.requires_grad_() for view in (*full_views(full), *local_views(local)))
    output = method(views, INDEX, PROGRESS)
    assert len(output.embeddings) == full
    harmony = make_harmonizer()(output.embeddings, INDEX, PROGRESS)
    (output.loss + harmony.loss).backward()
    assert all(view.grad is not None and view.grad.abs().sum() > 0 for view in views)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_are_finite(
    method: Method, harmonizer: Harmonizer | NoHarmonizer, precision: torch.dtype
) -> None:
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        output = method(full_views(), INDEX, PROGRESS)
        loss = output.loss + harmonizer(output.embeddings, INDEX, PROGRESS).loss
    loss.backward()
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_gradients_reach_exactly_the_parameters_they_must(method: Method) -> None:
    """All of the encoder, every trainable weight, and nothing that is frozen, such as a twin."""
    assert all(parameter.requires_grad for parameter in method.encoder.parameters())
    method(full_views(), INDEX, PROGRESS).loss.backward()
    for name, parameter in method.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None, name
        elif parameter.ndim > 1:  # the bias before a BatchNorm has none by nature
            assert parameter.grad is not None, name
            assert parameter.grad.abs().max() > 1e-7, name


def test_the_harmonizer_adds_gradient_to_the_encoder(method: Method) -> None:
    output = method(full_views(), INDEX, PROGRESS)
    make_harmonizer()(output.embeddings, INDEX, PROGRESS).loss.backward()
    gradients = [parameter.grad for parameter in method.encoder.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_a_forward_pass_leaves_no_trace(method: Method, harmonizer: Harmonizer | NoHarmonizer) -> None:
    take_steps(method, harmonizer, 40, 3)
    before = leaves(method.state_dict()), leaves(harmonizer.state_dict())
    output = method(full_views(), INDEX, PROGRESS)
    harmonizer(output.embeddings, INDEX, PROGRESS)
    assert same((before[0], leaves(method.state_dict())), but=BATCH_NORM)
    assert same((before[1], leaves(harmonizer.state_dict())))


def test_the_order_of_the_batch_does_not_matter(method: Method) -> None:
    order = torch.randperm(B, generator=torch.Generator().manual_seed(1))
    twin = copy.deepcopy(method)
    torch.manual_seed(0)
    output = method(full_views(), INDEX, PROGRESS)
    torch.manual_seed(0)
    shuffled = twin(tuple(view[order] for view in full_views()), INDEX[order], PROGRESS)
    assert torch.allclose(shuffled.loss, output.loss, atol=1e-5)
    if output.per_sample is not None and shuffled.per_sample is not None:
        assert torch.allclose(shuffled.per_sample, output.per_sample[order], atol=1e-4)


# --- steps and state --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_the_same_seed_gives_the_same_bits(name: str, harmonizer: Harmonizer | NoHarmonizer) -> None:
    first, second, other = make(name), make(name), make(name, seed=1)
    twin = copy.deepcopy(harmonizer)
    losses = take_steps(first, harmonizer, 40, 3)
    assert torch.equal(torch.stack(losses), torch.stack(take_steps(second, twin, 40, 3)))
    assert same((leaves(first.state_dict()), leaves(second.state_dict())))
    assert not same((leaves(first.state_dict()), leaves(other.state_dict())))


@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded_it_goes_on_the_same(name: str) -> None:
    """Through the format of a checkpoint, into a method that began elsewhere."""
    method, other = make(name), make(name, seed=1)
    take_steps(method, NoHarmonizer(), 40, 3)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    losses = (take_steps(each, NoHarmonizer(), 43, 3) for each in (method, other))
    assert torch.equal(*(torch.stack(each) for each in losses))
    assert same((leaves(method.state_dict()), leaves(other.state_dict())))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("arm", ["base", "gh"])
def test_a_resumed_run_equals_one_that_never_stopped(name: str, arm: str, tmp_path: Path) -> None:
    """GH acts from the second of two epochs on; the run goes on from its middle."""
    settings = [f"method={name}", "epochs=2", "backbone.width=4", "checkpoint_every=4 steps", *SETTINGS.get(name, [])]
    recipe = replace(get_recipe("digits-lt", arm).set(settings), monitor=())
    run = RunDir(train(recipe, tmp_path / "run"))
    assert len(run.checkpoint_steps()) > 1, "there is a checkpoint to go on from"
    last = run.checkpoint_steps()[-1]
    files = (run.encoder_file, run.checkpoint_file(last))
    whole = run.encoder_file.read_bytes(), run.metrics_file.read_bytes()
    state = leaves(torch.load(files[1], weights_only=True))
    for file in files:
        file.unlink()
    train(recipe, run.path, resume=True)
    assert (run.encoder_file.read_bytes(), run.metrics_file.read_bytes()) == whole
    assert same((leaves(torch.load(files[1], weights_only=True)), state))


# --- what comes of it -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("arm", ["base", "gh"])
def test_it_learns_more_than_the_untrained_encoder_knows(name: str, arm: str, tmp_path: Path) -> None:
    """200 steps on digits: kNN above the untrained encoder, by features that fill their space."""
    settings = [f"method={name}", "epochs=34", "backbone.width=16", "batch_size=64", "evaluate_every=34 epochs"]
    rate = RATES.get(name, 0.3)
    settings += [f"schedule.learning_rate={rate}", *SETTINGS.get(name, [])]
    if arm == "gh":
        settings += [f"schedule.middle={0.6 * rate}", f"harmonizer.weight={WEIGHTS.get(name, 1.0)}"]
    run = train(get_recipe("digits-lt", arm).set(settings), tmp_path / "run")
    results = evaluate(run, metrics=["knn"])
    assert results["knn"]["average"] > results["knn_untrained"]["average"] + 3
    encoder = resnet_small(1, width=16, stages=2)
    load_encoder(RunDir(run), encoder)
    test = digits().test
    assert test is not None
    features = extract(encoder, test, Views(8, **VIEWS["digits"])).features
    assert effective_rank(features) > 5


def effective_rank(features: Tensor) -> float:
    """exp(entropy of the shares of the singular values) of centred directions (Roy & Vetterli, 2007); 1 to D."""
    directions = torch.nn.functional.normalize(features.double(), dim=1)
    values = torch.linalg.svdvals(directions - directions.mean(0))
    shares = values / values.sum()
    return float(torch.special.entr(shares).sum().exp())


def test_the_rank_tells_collapsed_features_from_others() -> None:
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(200, 8, generator=generator)
    assert effective_rank(spread) > 7.5
    line = torch.randn(200, 1, generator=generator) * torch.randn(1, 8, generator=generator)
    assert effective_rank(line + 1e-6 * spread) < 1.1


def test_every_method_says_what_it_costs_and_needs() -> None:
    for name, info in METHOD_INFO.items():
        assert info.paper, name
        assert info.needs, name
        assert info.cost > 0, name
        assert info.streams == ("index" not in type(make(name)).needs), name
