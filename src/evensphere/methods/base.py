"""What a self-supervised method is to the rest of the program. It knows no harmonizer, data set or optimiser."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from jaxtyping import Float, Int64
from torch import Tensor, nn

from evensphere.ops.schedule import Progress


class Output(NamedTuple):
    """What a method makes of a batch.

    loss: scalar, with gradient.
    embeddings: the online projector's output of each *full* view, [B, D] each, with gradient, before any predictor or
        prototypes; small crops are left out. This is what the harmonizer sees.
    logs: scalars worth logging, without gradient.
    per_sample: the loss of each image [B], without gradient, where the method has one.
    carried: what `after_step` needs of this batch and nobody else does (keys for a queue, say), without gradient.
    """

    loss: Float[Tensor, ""]
    embeddings: tuple[Float[Tensor, "batch dim"], ...]
    logs: Mapping[str, Tensor]
    per_sample: Float[Tensor, " batch"] | None = None
    carried: tuple[Tensor, ...] = ()


class Method(nn.Module):
    """A self-supervised method around an encoder.

    encoder: the network people keep. embedding_dim: width D of the embeddings.
    needs: what the method cannot do without, of {"index"}; an unmet need is refused before training.
    """

    encoder: nn.Module
    embedding_dim: int
    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def forward(
        self, views: Sequence[Float[Tensor, "batch c h w"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        """The loss of a batch. Changes no memory, twin or queue: a step that is not taken must leave no trace."""

    def view_strength(self, index: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"] | None:
        """How strongly the views of each image are to be augmented, in [0, 1]; None is 0 for all. Changes nothing."""
        return None

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        """Update memories, twins and queues; called only after a step that was taken."""
