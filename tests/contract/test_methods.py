"""What every method promises, with and without GH. A new line in METHODS is tested here without a word more."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evensphere.gh.harmonizer import Harmonizer, NoHarmonizer
from evensphere.methods import METHODS
from evensphere.methods.base import Method, Output
from evensphere.nn.backbone import resnet_small
from evensphere.ops.schedule import Progress
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import evaluate, train

B = 16
PROGRESS = Progress(3, 4, 40)
INDEX = torch.arange(B)

# Where the recipe's learning rate, 0.3, does not suit a method: MoCo's paper has 0.0075 for this batch.
RATES = {"moco": 0.06, "byol": 0.03, "simsiam": 0.06, "moco-v3": 0.06, "nnclr": 0.06}

# Sizes made for millions of images, cut to a few hundred digits; and GH's weight where the method's own gradient is a
# tenth of SimCLR's, measured against GH's at the encoder.
SETTINGS = {
    "moco": ["method.queue_size=1024", "method.momentum=0.99"],
    "byol": ["method.hidden_dim=256"],
    "simsiam": ["method.embedding_dim=128", "method.hidden_dim=128", "method.predictor_dim=32"],
    "moco-v3": ["method.hidden_dim=256"],
    "nnclr": ["method.queue_size=1024", "method.hidden_dim=256", "method.predictor_dim=256"],
}
WEIGHTS = {"byol": 0.1, "simsiam": 0.1}


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> Method:
    torch.manual_seed(0)
    built: Method = build("method", Part(request.param, embedding_dim=24), encoder=resnet_small(1, width=8, stages=2))
    return built


@pytest.fixture(params=["no GH", "GH"])
def harmonizer(request: pytest.FixtureRequest) -> Harmonizer | NoHarmonizer:
    if request.param == "no GH":
        return NoHarmonizer()
    return Harmonizer(24, num_samples=B, anchors=6, warm_up=0, ramp=0, update_every=1)


def two_views(seed: int = 0) -> tuple[Tensor, ...]:
    return tuple(torch.randn(2, B, 1, 8, 8, generator=torch.Generator().manual_seed(seed)))


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    """Everything a module knows but BatchNorm's running statistics, which a forward pass in training mode may move."""
    state = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    return {
        name: value.clone() for name, value in state.items() if "running_" not in name and "num_batches" not in name
    }


def test_shapes_are_what_the_harmonizer_needs(method: Method) -> None:
    output = method(two_views(), INDEX, PROGRESS)
    assert isinstance(output, Output)
    assert output.loss.shape == ()
    assert len(output.embeddings) >= 2
    assert all(z.shape == (B, method.embedding_dim) and z.requires_grad for z in output.embeddings)
    assert "ssl" in output.logs
    assert not any(value.requires_grad for value in output.logs.values())
    if output.per_sample is not None:
        assert output.per_sample.shape == (B,)
        assert not output.per_sample.requires_grad
    method.encoder.eval()
    assert method.encoder(two_views()[0]).shape == (B, method.encoder.num_features)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_are_finite(
    method: Method, harmonizer: Harmonizer | NoHarmonizer, precision: torch.dtype
) -> None:
    with torch.autocast("cpu", dtype=precision, enabled=precision != torch.float32):
        output = method(two_views(), INDEX, PROGRESS)
        loss = output.loss + harmonizer(output.embeddings, INDEX, PROGRESS).loss
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_the_harmonizer_adds_gradient_to_the_encoder(method: Method) -> None:
    harmonizer = Harmonizer(24, num_samples=B, anchors=6, warm_up=0, ramp=0, update_every=1)
    output = method(two_views(), INDEX, PROGRESS)
    harmonizer(output.embeddings, INDEX, PROGRESS).loss.backward()
    gradients = [parameter.grad for parameter in method.encoder.parameters()]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)


def test_a_forward_pass_leaves_no_trace(method: Method, harmonizer: Harmonizer | NoHarmonizer) -> None:
    before = snapshot(method), copy.deepcopy(harmonizer.state_dict())
    output = method(two_views(), INDEX, PROGRESS)
    harmonizer(output.embeddings, INDEX, PROGRESS)
    after = snapshot(method), harmonizer.state_dict()
    assert all(torch.equal(value, after[0][name]) for name, value in before[0].items())
    assert str(before[1]) == str(after[1])


def test_saved_and_loaded_it_gives_the_same(method: Method) -> None:
    method(two_views(1), INDEX, PROGRESS)
    twin = copy.deepcopy(method)
    for parameter in twin.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    twin.load_state_dict(method.state_dict())
    assert torch.equal(twin(two_views(), INDEX, PROGRESS).loss, method(two_views(), INDEX, PROGRESS).loss)


def test_the_order_of_the_batch_does_not_matter(method: Method) -> None:
    order = torch.randperm(B, generator=torch.Generator().manual_seed(1))
    twin = copy.deepcopy(method)
    output = method(two_views(), INDEX, PROGRESS)
    shuffled = twin(tuple(view[order] for view in two_views()), INDEX[order], PROGRESS)
    assert torch.allclose(shuffled.loss, output.loss, atol=1e-5)
    if output.per_sample is not None and shuffled.per_sample is not None:
        assert torch.allclose(shuffled.per_sample, output.per_sample[order], atol=1e-4)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("arm", ["base", "gh"])
def test_it_learns_more_than_the_untrained_encoder_knows(name: str, arm: str, tmp_path: Path) -> None:
    """200 steps on digits: kNN above the untrained encoder, which collapsed features could not be."""
    settings = [f"method={name}", "epochs=34", "backbone.width=16", "batch_size=64", "evaluate_every=34 epochs"]
    rate = RATES.get(name, 0.3)
    settings += [f"schedule.learning_rate={rate}", *SETTINGS.get(name, [])]
    if arm == "gh":
        settings += [f"schedule.middle={0.6 * rate}", f"harmonizer.weight={WEIGHTS.get(name, 1.0)}"]
    run = train(get_recipe("digits-lt", arm).set(settings), tmp_path / "run")
    results = evaluate(run, metrics=["knn"])
    assert results["knn"]["average"] > results["knn_untrained"]["average"] + 3
