"""Micro-batches: a large batch through the encoder in parts, in the memory of one part.

The loss still sees the whole batch: its negatives, its Sinkhorn problem and the heads' BatchNorm are those of a large
batch, which gradients that are merely summed over small batches would not be (Gao et al., "Scaling Deep Contrastive
Learning Batch Size under Memory Limited Setup", 2021; their GradCache). Each part's features are computed without what
the backward pass would need; the loss is computed from all features; and the backward pass computes a part again, with
everything it needs, when it comes to it. An encoder's forward pass is done twice for that, about a third more work.

Every method works unchanged: it is the calls of its encoder, and of the encoder's twins, that go in parts. Up to
rounding a run is that of the large batch where the encoder has no BatchNorm. **BatchNorm in the encoder normalises each
part by that part's own statistics**, as it does in data parallelism, and the gradient is exactly that of this. (With
the whole batch's statistics every layer would wait for all parts, forward and backward, in the memory of all.) So:

* The parts are drawn anew for every call, so that two views of an image, or a query and its key, do not recognise each
  other by the statistics of a part that they share (MoCo's shuffled BatchNorm does the same).
* Running statistics move once a call, by the mean of the parts' means and variances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import MethodType

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from evensphere.methods.base import Method
from evensphere.ops.transfer import send


def encode_in_parts(method: Method, most: int) -> None:
    """From now on the encoder of a method, and its twins, take images in parts of at most `most` when they are trained.

    State dictionaries stay as they are; copies of the method do the same.
    """
    for module in _encoders(method):
        module.forward = MethodType(_InParts(most), module)


def whole_again(method: Method) -> None:
    """Undo `encode_in_parts`."""
    for module in _encoders(method):
        module.__dict__.pop("forward", None)


def normalises_by_parts(encoder: nn.Module) -> bool:
    """Whether an encoder makes something else of a batch that it is given in parts."""
    return any(isinstance(module, _BatchNorm) for module in encoder.modules())


def _encoders(method: Method) -> list[nn.Module]:
    """The encoder and its copies."""

    def shapes(module: nn.Module) -> list[tuple[str, torch.Size]]:
        return [(name, parameter.shape) for name, parameter in module.named_parameters()]

    kind, wanted = type(method.encoder), shapes(method.encoder)
    return [module for module in method.modules() if type(module) is kind and shapes(module) == wanted]


class _InParts:
    """The forward pass of a module, part by part. most: images of a part."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, module: nn.Module, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch features"]:
        if not module.training or len(images) <= self.most:
            whole: Tensor = type(module).forward(module, images)
            return whole
        count = -(-len(images) // self.most)
        if not normalises_by_parts(module):
            return _features(module, images.tensor_split(count))
        # torch's generator was seeded for this step, so the order is a function of seed, step and call
        order = torch.randperm(len(images))
        back = order.argsort()
        features = _features(module, images[send(order, images.device)].tensor_split(count))
        return features[send(back, images.device)]


def _features(module: nn.Module, parts: Sequence[Tensor]) -> Tensor:
    """Features of all parts, one after the other, kept without what a backward pass needs."""
    # by the time of the backward pass SDCLR's pruned weights are whole again, so the tensors of now are kept
    weights: dict[str, Tensor] = dict(module.named_parameters())
    buffers = dict(module.named_buffers())
    norms = [norm for norm in module.modules() if isinstance(norm, _BatchNorm) and _moves(norm)]
    with _moving_once(norms, [len(part) for part in parts]) as next_part:
        features = []
        for part in parts:
            next_part()
            features.append(_encode(module, weights, buffers, part))
    return torch.cat(features)


def _encode(module: nn.Module, weights: dict[str, Tensor], buffers: dict[str, Tensor], part: Tensor) -> Tensor:
    """The features of a part. What the backward pass needs is computed again when it comes to it, and that moves no
    running statistics."""
    first = True

    def run(images: Tensor) -> Tensor:
        nonlocal first
        used = buffers if first else {name: buffer.clone() for name, buffer in buffers.items()}
        first = False
        result: Tensor = functional_call(
            _Plain(module), {f"network.{name}": t for name, t in (weights | used).items()}, (images,)
        )
        return result

    if not torch.is_grad_enabled():
        return run(part)
    features: Tensor = checkpoint(run, part, use_reentrant=False)
    return features


class _Plain(nn.Module):
    """A module as its class has it, under `network`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = type(self.network).forward(self.network, x)
        return result


def _moves(norm: _BatchNorm) -> bool:
    return norm.training and norm.track_running_stats and norm.running_mean is not None


@contextmanager
def _moving_once(norms: Sequence[_BatchNorm], sizes: Sequence[int]) -> Iterator[Callable[[], None]]:
    """Have running statistics r move by the statistics s of all parts as by those of one batch:

        r <- (1 - m) r + m (n_1 s_1 + ... + n_k s_k) / n,      m: the momentum, n_i: images of a part, n: of all

    which is what one part after the other does with momentum  m n_i / (n - m (n_{i+1} + ... + n_k)).
    The variance of a part of randomly drawn images, divided by n_i - 1, has that of all images as its expectation, so
    the mean of the parts' variances needs no correction. Yields a function to be called before each part.
    """
    before = [norm.momentum for norm in norms]
    whole = [1 / (float(norm.num_batches_tracked) + 1) if norm.momentum is None else norm.momentum for norm in norms]  # type: ignore[arg-type]
    left, total = list(sizes), sum(sizes)

    def next_part() -> None:
        size = left.pop(0)
        for norm, momentum in zip(norms, whole, strict=True):
            norm.momentum = momentum * size / (total - momentum * sum(left))

    try:
        yield next_part
        for norm in norms:
            assert norm.num_batches_tracked is not None
            norm.num_batches_tracked.sub_(len(sizes) - 1)
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
