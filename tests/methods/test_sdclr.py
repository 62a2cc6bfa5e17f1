"""SDCLR: which weights the masked branch lacks, whose statistics move, and the authors' two passes as the oracle."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.errors import InputError
from evensphere.gh.anchors import geometric_uniform
from evensphere.gh.harmonizer import harmonization_loss
from evensphere.methods.base import Output
from evensphere.methods.sdclr import SDCLR, convolution_weights, magnitude_masks
from evensphere.nn.backbone import resnet_small, timm_backbone
from evensphere.ops.contrast import info_nce
from evensphere.ops.schedule import Progress

MIDDLE, END = Progress(0, 2, 8), Progress(1, 2, 8)


def two_views(batch: int = 6, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, batch, 1, 8, 8, generator=generator).to(dtype)
    return first, 3 + 2 * second


def make(seed: int = 0, **options: float) -> SDCLR:
    torch.manual_seed(seed)
    return SDCLR(resnet_small(1, width=4, stages=2), embedding_dim=8, **options)


def moved(method: SDCLR) -> SDCLR:
    """With BatchNorm's weights and biases away from 1 and 0, where the two sets could not be told apart."""
    for parameter in method.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return method


# --- the mask


@pytest.mark.parametrize("prune", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("backbone", ["resnet-small", "mnasnet_small"])
def test_the_weights_kept_are_the_largest_of_all_convolutions(backbone: str, prune: float) -> None:
    torch.manual_seed(0)
    encoder = resnet_small(width=4) if backbone == "resnet-small" else timm_backbone(backbone)
    kernels = {name: p for name, p in encoder.named_parameters() if p.ndim == 4}  # only convolutions have four axes
    masks = magnitude_masks(encoder, prune)
    assert masks.keys() == kernels.keys()
    assert next(iter(masks)).startswith("conv"), "the stem's is one of them"
    ranked = sorted(abs(w) for kernel in kernels.values() for w in kernel.flatten().tolist())
    threshold = ranked[math.ceil(prune * len(ranked))]
    for name, kernel in kernels.items():
        assert torch.equal(masks[name], kernel.abs() >= threshold)
    kept = sum(int(mask.sum()) for mask in masks.values())
    # initial weights are hardly ever equal, but float32 has only so many values
    assert kept == pytest.approx(len(ranked) - math.ceil(prune * len(ranked)), abs=5)


def test_the_mask_is_renewed_when_an_epoch_ends_and_only_then() -> None:
    method = make()
    output = method(two_views(), None, MIDDLE)
    before = method.masks
    with torch.no_grad():
        for weight in convolution_weights(method.encoder).values():
            weight.copy_(torch.randn(weight.shape))
    method.after_step(None, output, MIDDLE)
    assert same(method.masks, before)
    method.after_step(None, output, END)
    assert not same(method.masks, before)
    assert same(method.masks, magnitude_masks(method.encoder, 0.9))


def same(masks: dict[str, Tensor], others: dict[str, Tensor]) -> bool:
    return all(torch.equal(mask, others[name]) for name, mask in masks.items())


def test_the_mask_is_in_a_checkpoint() -> None:
    """It is that of the epoch's beginning, and cannot be had from the weights in the middle of it."""
    method, other = make(), make(seed=1)
    for parameter in method.encoder.parameters():
        nn.init.normal_(parameter)
    file = io.BytesIO()
    torch.save(method.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert same(other.masks, method.masks)
    assert not same(other.masks, magnitude_masks(method.encoder, 0.9))
    assert torch.equal(other(two_views(), None, MIDDLE).loss, method(two_views(), None, MIDDLE).loss)


# --- the two branches


def masked_copy(method: SDCLR) -> nn.Sequential:
    """The masked branch as a network of its own, put together by hand."""
    network = nn.Sequential(copy.deepcopy(method.encoder), copy.deepcopy(method.projector))
    with torch.no_grad():
        for name, mask in method.masks.items():
            network.get_parameter(f"0.{name}").mul_(mask)
    norms = [(name, module) for name, module in network.named_modules() if "BatchNorm" in type(module).__name__]
    assert len(norms) == len(method.masked_norms)
    for (name, _), norm in zip(norms, method.masked_norms, strict=True):
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, copy.deepcopy(norm))
    return network


def nt_xent_by_hand(z1: Tensor, z2: Tensor, temperature: float) -> float:
    """The equation, one term at a time."""
    everything = normalize(torch.cat([z1, z2]), dim=1).tolist()
    total = 0.0
    for i, anchor in enumerate(everything):
        partner = (i + len(z1)) % len(everything)
        shares = [math.exp(sum(a * b for a, b in zip(anchor, z, strict=True)) / temperature) for z in everything]
        total -= math.log(shares[partner] / (sum(shares) - shares[i]))
    return total / len(everything)


@pytest.mark.parametrize("batch", [2, 5, 12])
def test_the_loss_is_nt_xent_between_the_dense_and_a_pruned_network(batch: int) -> None:
    method, (view1, view2) = moved(make(prune=0.7, temperature=0.3)).double(), two_views(batch, torch.float64)
    by_hand = masked_copy(method)
    dense = nn.Sequential(copy.deepcopy(method.encoder), copy.deepcopy(method.projector))
    output = method((view1, view2), None, MIDDLE)
    z1, z2 = dense(view1), by_hand(view2)
    assert torch.allclose(output.embeddings[0], z1, atol=1e-12)
    assert torch.allclose(output.embeddings[1], z2, atol=1e-12)
    assert output.loss.item() == pytest.approx(nt_xent_by_hand(z1, z2, 0.3), abs=1e-12)
    assert not torch.allclose(method.projector(method.encoder(view2)), z2), "the mask makes a difference"


def test_any_convolutional_backbone_has_a_masked_branch() -> None:
    torch.manual_seed(0)
    method = moved(SDCLR(timm_backbone("mnasnet_small"), embedding_dim=8, prune=0.5))
    view = torch.randn(8, 3, 64, 64)
    assert torch.allclose(method.embed_masked(view), masked_copy(method)(view), atol=1e-4)


GhOrNot = Callable[[Tensor, Tensor], Tensor]


def gh(z1: Tensor, z2: Tensor) -> Tensor:
    return harmonization_loss(z1, z2, geometric_uniform(6, 8), torch.tensor([0.3, 0.2, 0.2, 0.1, 0.1, 0.1]))


@pytest.mark.parametrize("criterion", [lambda z1, z2: info_nce(z1, z2).mean(), gh], ids=["NT-Xent", "GH"])
def test_one_loss_has_the_gradient_of_the_authors_two_passes(criterion: GhOrNot) -> None:
    method, (view1, view2) = moved(make(prune=0.7)).double(), two_views(12, torch.float64)
    parameters = dict(method.named_parameters())

    z1, z2 = method.embed((view1, view2))
    one = criterion(z1, z2)
    together = torch.autograd.grad(one, [*parameters.values()])

    for parameter in parameters.values():
        parameter.grad = None
    with torch.no_grad():
        stopped = method.embed_masked(view2)
    z1 = method.projector(method.encoder(view1))
    first = criterion(z1, stopped)
    first.backward()
    second = criterion(z1.detach(), method.embed_masked(view2))
    second.backward()

    for (name, parameter), gradient in zip(parameters.items(), together, strict=True):
        assert parameter.grad is not None
        assert (gradient - parameter.grad).norm() <= 1e-10 * max(1.0, gradient.norm().item()), name
        assert gradient.norm() > 1e-8 or name == "projector.0.bias", "BatchNorm takes away a bias right before it"
    assert one.item() == pytest.approx((first + second).item() / 2, abs=1e-12), "logged is half of their sum"


def test_what_is_logged_is_the_one_loss() -> None:
    output = make()(two_views(), None, MIDDLE)
    assert torch.equal(output.logs["ssl"], output.loss.detach())
    assert output.per_sample is not None
    assert torch.allclose(output.per_sample.mean(), output.loss)


def test_a_masked_weight_learns_from_the_dense_branch_alone() -> None:
    method, (view1, view2) = make().double(), two_views(12, torch.float64)
    weights = [*convolution_weights(method.encoder).values()]
    stopped = method.projector(method.encoder(view1)).detach()
    masked = torch.autograd.grad(info_nce(stopped, method.embed_masked(view2)).mean(), weights)
    dense = torch.autograd.grad(
        info_nce(method.projector(method.encoder(view1)), method.embed_masked(view2).detach()).mean(), weights
    )
    for mask, from_masked, from_dense in zip(method.masks.values(), masked, dense, strict=True):
        assert (from_masked[~mask] == 0).all()
        assert (from_dense[~mask] != 0).float().mean() > 0.9
    assert any((gradient != 0).any() for gradient in masked)


def statistics(module: nn.Module) -> dict[str, Tensor]:
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def changed(before: dict[str, Tensor], module: nn.Module) -> list[bool]:
    return [not torch.equal(before[name], buffer) for name, buffer in module.named_buffers()]


def test_each_branch_has_batch_statistics_of_its_own() -> None:
    method, (view1, view2) = make(prune=0.5), two_views()
    dense, masked = (nn.Sequential(method.encoder, method.projector), method.masked_norms)
    assert len(statistics(dense)) == len(statistics(masked)) > 0
    before = statistics(dense), statistics(masked)
    method.embed_masked(view2)
    assert not any(changed(before[0], dense))
    assert all(changed(before[1], masked))
    before = statistics(dense), statistics(masked)
    method.projector(method.encoder(view1))
    assert all(changed(before[0], dense))
    assert not any(changed(before[1], masked))
    method((view1, view2), None, MIDDLE)
    counts = {int(buffer) for name, buffer in masked.named_buffers() if "num_batches" in name}
    assert counts == {2}, "once for each of its forward passes"


def test_the_encoder_people_keep_is_the_dense_one() -> None:
    torch.manual_seed(0)
    plain = resnet_small(1, width=4, stages=2)
    assert make().encoder.state_dict().keys() == plain.state_dict().keys()


# --- mistakes


@pytest.mark.parametrize("prune", [-0.1, 1.0, float("nan")])
def test_a_share_out_of_range_is_refused(prune: float) -> None:
    with pytest.raises(InputError, match="prune"):
        make(prune=prune)


def test_a_vit_is_refused_in_one_sentence() -> None:
    with pytest.raises(InputError, match="none beyond its first layer") as caught:
        SDCLR(timm_backbone("vit_tiny_patch16_224", img_size=32))
    assert "\n" not in str(caught.value)


def test_output_is_an_output() -> None:
    assert isinstance(make()(two_views(), None, MIDDLE), Output)
