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
    per_sample: the loss of each image [B], with gradient, where the method has one. Its mean is the loss, or the part
        of it that is made of images.
    carried: what `after_step` needs of this batch and nobody else does (keys for a queue, say), without gradient.
    """

    loss: Float[Tensor, ""]
    embeddings: tuple[Float[Tensor, "batch dim"], ...]
    logs: Mapping[str, Tensor]
    per_sample: Float[Tensor, " batch"] | None = None
    carried: tuple[Tensor, ...] = ()


def split_views(
    views: Sequence[Float[Tensor, "batch c _ _"]],
) -> tuple[list[Float[Tensor, "batch c _ _"]], list[Float[Tensor, "batch c _ _"]]]:
    """The full views and the local ones, each in their order. A view is full if it has the size of the first."""
    full = [view for view in views if view.shape == views[0].shape]
    return full, [view for view in views if view.shape != views[0].shape]


class Method(nn.Module):
    """A self-supervised method around an encoder.

    encoder: the network people keep. embedding_dim: width D of the embeddings.
    needs: what the method cannot do without, of {"index"}; an unmet need is refused before training.
    full_views: how many full views of an image it compares; None stands for any number from 2 on.
    per_sample: whether the loss is made of one for each image (see `Output.per_sample`).
    local_views: whether it makes use of smaller views that come after the full ones (see `split_views`).
    """

    encoder: nn.Module
    embedding_dim: int
    needs: ClassVar[frozenset[str]] = frozenset()
    full_views: ClassVar[int | None] = 2
    per_sample: ClassVar[bool] = True
    local_views: ClassVar[bool] = False

    @abstractmethod
    def forward(
        self, views: Sequence[Float[Tensor, "batch c _ _"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        """The loss of a batch. Changes no memory, twin or queue: a step that is not taken must leave no trace."""

    def view_strength(self, index: Int64[Tensor, " batch"]) -> Float[Tensor, " batch"] | None:
        """How strongly the views of each image are to be augmented, in [0, 1]; None is 0 for all. Changes nothing."""
        return None

    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        """Update memories, twins and queues; called only after a step that was taken."""
