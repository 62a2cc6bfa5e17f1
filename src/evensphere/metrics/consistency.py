"""Whether neighbourhoods in an embedding mean anything: do two random views of an image have the same neighbours?

Neighbours that follow the crop and the colour, and not the thing, change from one view to the other; whatever is said
about regions and sparse places of such an embedding is about crops and colours. No label is needed.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from evensphere.metrics.density import nearest_neighbours

_PER_NEIGHBOUR = 20  # images for each neighbour asked for, so that chance alone gives 5 % at most


def neighbours_to_compare(num_images: int, k: int = 10) -> int:
    """k, or fewer where so many neighbours would often be the same by chance; 0 where even one would."""
    return min(k, num_images // _PER_NEIGHBOUR)


def shared_neighbours(first: Int64[Tensor, "n k"], second: Int64[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """The share of each row of `first` that is in the same row of `second`, in [0, 1]. Rows hold no number twice."""
    return torch.stack([(first[:, i : i + 1] == second).any(1) for i in range(first.shape[1])]).float().mean(0)


def neighbourhood_consistency(
    view1: Float[Tensor, "n d"], view2: Float[Tensor, "n d"], k: int = 10
) -> Float[Tensor, " n"] | None:
    """For each image, the share of its nearest neighbours among all first views that are also its nearest among all
    second views. About k / n by chance, 1 if neighbourhoods do not depend on the view.

    view1, view2: finite features of two random views of the same images. k: neighbours, fewer for fewer than 20 k
        images. None for fewer than 20 images, of which nothing can be said.
    """
    k = neighbours_to_compare(len(view1), k)
    if k == 0:
        return None
    first, second = (nearest_neighbours(view, k).index for view in (view1, view2))
    return shared_neighbours(first, second)
