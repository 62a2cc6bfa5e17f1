"""Adaptive SAM, and rwSAM: rare images decide where the loss is looked at.

ASAM (Kwon et al., ICML 2021; the parameters w, all of them together, with |w| and products taken entry by entry):

    e = rho w^2 g / | |w| g |,   g = the gradient of the loss at w
    w <- an SGD step of w with the gradient of the loss at w + e

rwSAM (Liu et al., "Self-supervised Learning is More Robust to Dataset Imbalance", ICLR 2022): g is the gradient of the
loss in which image i counts v_i = (density of image i)^-power; the loss at w + e counts all alike. So the minimum is
flat for rare images above all. The density is a kernel estimate from the features of a first, plain run:

evensphere train RECIPE --out FIRST; evensphere train RECIPE --set optimizer=rwsam --set optimizer.pretrained=FIRST

Both passes of a step see the same views and the same dropout; BatchNorm's running statistics move in both, as in the
authors' code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import normalize

from evensphere.engine.optim import check_decays
from evensphere.errors import InputError


class AdaptiveSAM(torch.optim.SGD):
    """SGD with the gradient from the top of the nearest slope. A step costs two forward and two backward passes.

    image_weights: how much each image of the data set counts in the ascent, mean 1; None counts all alike.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], rho: float, image_weights: Tensor | None = None, **options: Any
    ) -> None:
        super().__init__(parameters, **options)
        self.rho, self.image_weights = rho, image_weights

    @torch.no_grad()
    def step(self, closure: Callable[..., Any]) -> Any:  # type: ignore[override]
        """closure(image_weights): a forward and a backward pass; without weights all images count alike."""
        with torch.enable_grad():
            closure(self.image_weights)
        start = self._ascend()
        try:
            with torch.enable_grad():
                loss = closure()
        finally:  # also where the closure refuses the step
            for parameter, value in start.items():
                parameter.copy_(value)
        super().step()
        return loss

    def _ascend(self) -> dict[nn.Parameter, Tensor]:
        """Go from w to w + e; w."""
        parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        start = {p: p.clone() for p in parameters}
        norm = torch.stack([(p * p.grad).norm() for p in parameters]).norm()
        scale = self.rho / norm.clamp(min=1e-12)
        for p in parameters:
            p.addcmul_(p.square(), p.grad * scale)
        self.zero_grad()
        return start


def asam(
    parameters: Iterable[nn.Parameter], momentum: float = 0.9, weight_decay: float = 5e-4, rho: float = 0.5
) -> torch.optim.Optimizer:
    """Adaptive SAM on SGD. rho: how far to climb, > 0 (Liu et al.: 0.5)."""
    check_decays(weight_decay, momentum=momentum)
    if not rho > 0:
        raise InputError(f"rho = {rho} was given; it must be above 0.")
    return AdaptiveSAM(parameters, rho, lr=0.0, momentum=momentum, weight_decay=weight_decay)


def rwsam(
    parameters: Iterable[nn.Parameter],
    features_of: Callable[[str], Float[Tensor, "n d"]],
    pretrained: str,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    rho: float = 0.5,
    bandwidth: float = 0.1,
    power: float = 1.0,
) -> torch.optim.Optimizer:
    """rwSAM.

    pretrained: the folder of a finished run, whose features tell which images are rare.
    features_of: what that run's encoder makes of the images of this run, in their order.
    rho: how far to climb, > 0. bandwidth, power: of `density_weights`.

    rho is the authors'. Their code reads finished weights from a file, so bandwidth and power are ours.
    """
    optimizer = asam(parameters, momentum, weight_decay, rho)
    assert isinstance(optimizer, AdaptiveSAM)
    if not (bandwidth > 0 and power >= 0):
        raise InputError(f"bandwidth = {bandwidth}, power = {power} were given; they must be > 0 and >= 0.")
    optimizer.image_weights = density_weights(features_of(pretrained), bandwidth, power)
    return optimizer


def density_weights(features: Float[Tensor, "n d"], bandwidth: float, power: float) -> Float[Tensor, " n"]:
    """density^-power of each row, scaled to mean 1; the density is estimated with a Gaussian kernel on the unit sphere.

    bandwidth: standard deviation of the kernel, in distances between unit vectors (0 to 2). power: 0 weighs all alike.
    Each row is part of its own density, so that no weight is more than n^power times another.
    """
    unit = normalize(features.float(), dim=1)
    # |x - y|^2 / 2 = 1 - cosine; in pieces, since n x n numbers may not fit
    log_density = torch.cat([((rows @ unit.T - 1) / bandwidth**2).logsumexp(1) for rows in unit.split(1024)])
    return torch.softmax(-power * log_density, 0) * len(features)
