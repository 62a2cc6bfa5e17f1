"""BatchNorm over the batch of all processes, on every device; torch's own refuses CPUs.

Each process takes the mean of its rows and the squares of their deviations from it; all gather these and combine them
(Chan, Golub & LeVeque, 1979), which loses no digits where the mean is large. Statistics are in float32 at least.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from evensphere.errors import InputError
from evensphere.ops import collective
from evensphere.ops.precision import real


class SharedBatchNorm(_BatchNorm):
    """A BatchNorm whose batch is everybody's: same parameters, same buffers. In evaluation, or alone, it is torch's."""

    def forward(self, x: Float[Tensor, "batch c *places"]) -> Float[Tensor, "batch c *places"]:
        if not self.training or collective.world_size() == 1:
            y: Tensor = super().forward(x)
        else:
            y = self.normalise(x)
        return y

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def normalise(self, x: Tensor) -> Tensor:
        y, mean, variance, count = _Normalise.apply(x, self.weight, self.bias, self.eps)
        if self.track_running_stats:
            self._remember(mean, variance * count / (count - 1))
        return y  # type: ignore[no-any-return]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), rate)
        self.running_var.lerp_(variance.to(self.running_var), rate)

    def _check_input_dim(self, input: Tensor) -> None:
        pass


class SharedBatchNormAct(SharedBatchNorm):
    """timm's BatchNorm with what follows it."""

    def forward(self, x: Float[Tensor, "batch c *places"]) -> Float[Tensor, "batch c *places"]:
        y: Tensor = self.act(self.drop(super().forward(x)))  # type: ignore[operator]
        return y


_SHARED: dict[type[nn.Module], type[SharedBatchNorm]] = {
    nn.BatchNorm1d: SharedBatchNorm,
    nn.BatchNorm2d: SharedBatchNorm,
    nn.BatchNorm3d: SharedBatchNorm,
}


def share_batch_norms(network: nn.Module) -> None:
    """Turn every BatchNorm in a network into one over all processes, in place: whoever holds its parameters, an
    optimiser say, still does. Raises InputError for a kind of BatchNorm that is not known here."""
    for name, module in network.named_modules():
        if not isinstance(module, _BatchNorm) or isinstance(module, SharedBatchNorm):
            continue
        shared = _shared(type(module))
        if shared is None:
            raise InputError(
                f"{name} is a {type(module).__name__}, which several processes cannot share; "
                "choose another backbone, or train with one device."
            )
        module.__class__ = shared


def _shared(kind: type[nn.Module]) -> type[SharedBatchNorm] | None:
    if kind in _SHARED:
        return _SHARED[kind]
    timm = sys.modules.get("timm.layers.norm_act")  # a network of timm's has imported it; others start without
    return SharedBatchNormAct if timm is not None and kind is timm.BatchNormAct2d else None


class _Normalise(torch.autograd.Function):
    """(x - mean) / deviation * weight + bias, the mean, the variance and the number of places of all processes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _statistics(real(x))
        scale = (variance + epsilon).rsqrt()
        normal = (real(x) - _by_channel(mean, x)) * _by_channel(scale, x)
        ctx.save_for_backward(normal, scale, weight, count)
        ctx.has_bias, ctx.dtype = bias is not None, x.dtype
        ctx.mark_non_differentiable(mean, variance, count)
        y = normal
        if weight is not None and bias is not None:
            y = torch.addcmul(_by_channel(bias.to(normal), x), normal, _by_channel(weight.to(normal), x))
        return y.to(x.dtype), mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *others: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, None]:
        """Gradients of weight and bias are of the local rows, which data parallelism averages like all others."""
        normal, scale, weight, count = ctx.saved_tensors
        gradient = gradient.to(normal.dtype)
        everywhere = [place for place in range(normal.ndim) if place != 1]
        sums = torch.stack([gradient.sum(everywhere), (gradient * normal).sum(everywhere)])
        to_bias, to_weight = sums
        of_all, along = collective.total(sums) / count
        inner = gradient - _by_channel(of_all, normal) - normal * _by_channel(along, normal)
        slope = scale if weight is None else scale * weight.to(scale)
        to_x = (inner * _by_channel(slope, normal)).to(ctx.dtype)
        return (
            to_x,
            None if weight is None else to_weight.to(weight.dtype),
            to_bias.to(weight.dtype) if ctx.has_bias else None,
            None,
        )


def _statistics(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance (divided by the count) of each channel over all processes, and the count."""
    places = [place for place in range(x.ndim) if place != 1]
    variance, mean = torch.var_mean(x, places, correction=0)
    count = mean.new_full((1,), x.numel() // x.shape[1])
    parts = collective.stack(torch.cat([mean, variance, count]))
    counts = parts[:, -1:]
    means, variances = parts[:, :-1].chunk(2, dim=1)
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    variance = ((variances + (means - mean).square()) * counts).sum(0) / total
    return mean, variance, total


def _by_channel(numbers: Tensor, like: Tensor) -> Tensor:
    return numbers.view(1, -1, *[1] * (like.ndim - 2))
