"""SDCLR (Jiang et al., "Self-Damaging Contrastive Learning", ICML 2021), as the GH paper's authors run it.

    loss = mean over images of NT-Xent(z1, z2),   z1 = g(f(view 1; W); N),   z2 = g(f(view 2; M * W); N')

W are the encoder's weights and M in {0, 1} masks the share `prune` of its convolution weights that is smallest in
magnitude: what the network forgets when it is damaged is what it has learned least, the tail. N and N' are two sets of
BatchNorm layers (weight, bias and running statistics; encoder's and projector's), one for each branch. The dense branch
is the encoder that people keep, and its embedding is view 1's, which feeds the harmonizer's memory.

The authors run two backward passes, NT-Xent(z1, stop(z2)) and NT-Xent(stop(z1), z2). Their gradients sum to that of the
one loss above, so this is the same method with one forward pass per branch; the value logged here is half the sum of
theirs, and N' moves its statistics once per step where theirs moves twice. The same holds for GH on top.

Their network normalises pixels a second time on CIFAR, (x - m)/s twice. `--set views.mean=... views.std=...` with
m + s m and s^2 does that; it is off because nothing in the method asks for it.

Lightly has no SDCLR to compare with; its NT-Xent is compared in SimCLR's tests.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from evensphere.errors import InputError
from evensphere.methods.base import Output
from evensphere.methods.simclr import SimCLR
from evensphere.ops.schedule import Progress, Temperature


class SDCLR(SimCLR):
    """SimCLR whose second branch sees view 2 through a pruned copy of the network.

    prune: share of the convolution weights that the second branch does without, in [0, 1) (the authors: 0.9 on CIFAR,
        0.1 on the large sets). The other options are SimCLR's.

    The mask is taken from the weights at construction and again at the end of every epoch, so it is the same throughout
    an epoch. It is part of the state, but no buffer: data parallelism would send it at every step.

    Raises InputError for an encoder without convolutions beyond its first layer, such as a ViT: masking its patch
    embedding would blind it, not prune it, and leave all that it has learned in place.
    """

    masks: dict[str, Tensor]

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 128,
        temperature: Temperature | str | float = 0.2,
        prune: float = 0.9,
    ) -> None:
        super().__init__(encoder, embedding_dim, temperature)
        if not 0 <= prune < 1:
            raise InputError(
                f"prune = {prune} was given; it must be in [0, 1) (the authors: 0.9, on the large sets 0.1)."
            )
        if len(convolution_weights(encoder)) < 2:
            raise InputError(
                "SDCLR prunes convolutions, and this encoder has none beyond its first layer; choose a convolutional "
                "backbone, or another method."
            )
        self.prune = prune
        self.masks = magnitude_masks(encoder, prune)
        network = self._network()
        self._norm_names = [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]
        self.masked_norms = nn.ModuleList(copy.deepcopy(network.get_submodule(name)) for name in self._norm_names)

    def embed(self, views: Sequence[Float[Tensor, "batch c h w"]]) -> tuple[Tensor, ...]:
        """The dense branch's embedding of view 1 and the masked branch's of view 2."""
        dense, masked = views
        return self.projector(self.encoder(dense)), self.embed_masked(masked)

    def embed_masked(self, view: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch dim"]:
        """The projector's output when small weights are zero and BatchNorm is the masked branch's.

        A zeroed weight gets no gradient from here. The running statistics that move are those of `masked_norms`.
        """
        replaced: dict[str, Tensor] = {}
        for name, weight in convolution_weights(self.encoder).items():
            self.masks[name] = self.masks[name].to(weight.device)
            replaced[f"0.{name}"] = weight * self.masks[name]
        for name, norm in zip(self._norm_names, self.masked_norms, strict=True):
            own = (*norm.named_parameters(recurse=False), *norm.named_buffers(recurse=False))
            replaced |= {f"{name}.{part}": tensor for part, tensor in own}
        z: Tensor = functional_call(self._network(), replaced, (view,))
        return z

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        if progress.ends_epoch:
            self.masks = magnitude_masks(self.encoder, self.prune)

    def _network(self) -> nn.Sequential:
        """Encoder and projector as one module. Not kept: as a child its weights would be in the state twice."""
        return nn.Sequential(self.encoder, self.projector)

    def get_extra_state(self) -> dict[str, Any]:
        return {"masks": self.masks}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.masks = dict(state["masks"])


def convolution_weights(encoder: nn.Module) -> dict[str, Tensor]:
    """The weight of every convolution, the stem's too, by parameter name."""
    convolutions = {name: module for name, module in encoder.named_modules() if isinstance(module, _ConvNd)}
    return {f"{name}.weight" if name else "weight": module.weight for name, module in convolutions.items()}


@torch.no_grad()
def magnitude_masks(encoder: nn.Module, prune: float) -> dict[str, Tensor]:
    """For each convolution weight, by name, whether |w| >= sorted |w|[ceil(prune * n)], ranked over all n of them.

    prune: share that is masked, in [0, 1).
    """
    weights = convolution_weights(encoder)
    ranked = torch.cat([weight.abs().flatten() for weight in weights.values()]).sort().values
    threshold = ranked[min(math.ceil(prune * len(ranked)), len(ranked) - 1)]
    return {name: weight.abs() >= threshold for name, weight in weights.items()}
