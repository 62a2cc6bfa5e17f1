"""The one look at every image that curation is made from: features, which images are takes of one thing, and whether
the pixels show anything at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from torch import Tensor
from torch.nn.functional import normalize

from evensphere.data.duplicates import Fingerprints
from evensphere.data.source import Pixels, Source
from evensphere.engine.embed import embed, readable_again
from evensphere.errors import InputError
from evensphere.metrics.density import Neighbours, nearest_neighbours, neighbourhood_consistency
from evensphere.recipes.frozen import Frozen

NEIGHBOURS = 10  # that an image is compared with
RELIABLE = 30  # percent of shared neighbours below which an embedding is not to be trusted with this

_TIED = 2e-7  # between two cosines, which float32 cannot tell apart
_PER_NEIGHBOUR = 20  # leaders for each neighbour asked for, so that few are shared by chance
_LEVELS = 64  # of the histogram whose entropy is taken
_LOOKED_AT = 128  # pixels along the short side that are looked at; the same tell as much as all


class PixelFacts:
    """What an image's pixels show, whatever they show; filled in any order, by any thread.

    contrast: standard deviation of the brightness, in levels of 255. entropy: of its histogram, in bits, 0 to 6.
    aspect: long side over short. cut: share of the rows, from the lowest up, that are all of one colour, as a file that
    was cut short leaves them. All float64 [N], nan for images not seen.
    """

    def __init__(self, num_images: int) -> None:
        self.contrast, self.entropy, self.aspect, self.cut = np.full((4, num_images), np.nan)

    def see(self, i: int, image: Pixels) -> None:
        step = max(1, min(image.shape[1:]) // _LOOKED_AT)
        pixels = image[:, ::step, ::step].numpy()
        levels = pixels * 255.0 if image.is_floating_point() else pixels
        brightness = levels.mean(axis=0)
        shares = np.histogram(brightness, bins=_LEVELS, range=(0, 256))[0] / brightness.size
        self.contrast[i] = max(brightness.std(), *(plane.std() for plane in levels))
        self.entropy[i] = -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
        self.aspect[i] = max(image.shape[1:]) / min(image.shape[1:])
        other_rows = np.flatnonzero((pixels != pixels[:, -1:, -1:]).any(axis=(0, 2)))
        self.cut[i] = 1 - (other_rows[-1] + 1 if len(other_rows) else 0) / pixels.shape[1]


@dataclass(frozen=True)
class Look:
    """n images that could be read, numbered from 0 here.

    source, index: where they come from and their numbers there. locations: in words.
    features, views: unit rows of the whole image and of two random views of it; zero where the encoder failed.
    finite: whether it did not. groups: which images are takes of one thing, numbered from 0 by first appearance.
    contrast, entropy, aspect, cut: see `PixelFacts`. made_by: the encoder in words.
    """

    source: Source
    index: Int64[Tensor, " n"]
    locations: list[str]
    features: Float[Tensor, "n d"]
    views: tuple[Float[Tensor, "n d"], ...]
    finite: Bool[Tensor, " n"]
    groups: Int64[Tensor, " n"]
    contrast: ndarray
    entropy: ndarray
    aspect: ndarray
    cut: ndarray
    made_by: str

    @cached_property
    def leaders(self) -> Int64[Tensor, " l"]:
        """The first image of each group that the encoder did not fail at, ascending: what stands for the group."""
        usable = self.finite.nonzero()[:, 0]
        groups, inverse = self.groups[usable].unique(return_inverse=True)
        first = torch.full((len(groups),), len(usable)).scatter_reduce(0, inverse, torch.arange(len(usable)), "amin")
        return usable[first].sort().values

    @cached_property
    def consistency(self) -> Float[Tensor, " l"] | None:
        """How far the leaders' neighbours are the same in both views: 1 for all of them, 0 for as many as by chance
        (see metrics/density.py). None for fewer than 20 leaders, of which nothing can be said."""
        k = min(NEIGHBOURS, len(self.leaders) // _PER_NEIGHBOUR)
        if k == 0:
            return None
        seen = [nearest_neighbours(view[self.leaders], k + 1) for view in self.views]
        first, second = (Neighbours(one.index[:, :k], one.similarity[:, :k]) for one in seen)
        # where others are as near as the last of them, who the neighbours are is an accident, the same one in each view
        told_apart = [one.similarity[:, k - 1] - one.similarity[:, k] > _TIED for one in seen]
        return neighbourhood_consistency(first, second) * torch.stack(told_apart).all(0)

    @property
    def reliability(self) -> float | None:
        """Percent of neighbours that are the same in both views beyond chance, None for too few images to tell."""
        return None if self.consistency is None else 100 * float(self.consistency.mean())

    @property
    def verdict(self) -> str:
        """How far this embedding can be trusted with these images, in a sentence."""
        if self.reliability is None:
            return f"Too few images ({len(self.leaders)} different ones) to tell how reliable this is."
        shared = f"{self.reliability:.0f} % of an image's nearest neighbours are the same in two random views of it"
        if self.reliability < RELIABLE:
            return f"Not reliable here: only {shared}, by {self.made_by}; {RELIABLE} % or more is wanted."
        return f"Reliable here as far as can be told without labels: {shared}, by {self.made_by}."

    @property
    def short_verdict(self) -> str:
        """The same in a few words."""
        if self.reliability is None:
            return "too few images to tell how reliable this is"
        shared = f"{self.reliability:.0f} % of neighbours shared by two views"
        return f"not reliable here: {shared}" if self.reliability < RELIABLE else shared

    def pictures(self, wanted: Sequence[int]) -> Source:
        """Where some of the images can be read again, by their numbers `index`."""
        return readable_again(self.source, self.index[list(wanted)].tolist())


def look_at(frozen: Frozen, progress: Callable[[int, int], None] | None = None) -> Look:
    """Look at every image once. Raises InputError if none can be read or the encoder fails at all of them."""
    fingerprints, facts = Fingerprints(len(frozen.source)), PixelFacts(len(frozen.source))

    def see(i: int, image: Pixels) -> None:
        facts.see(i, image)
        if frozen.groups is None:
            fingerprints.see(i, image)

    found = embed(frozen.source, frozen.encoder, frozen.views, 2, see, progress)
    known = fingerprints.groups() if frozen.groups is None else frozen.groups[found.index]
    both = (found.features, *found.augmented)
    finite = torch.stack([features.isfinite().all(1) for features in both]).all(0)
    if not finite.any():
        raise InputError(f"{frozen.made_by} gives no finite features for any image; it has diverged in training.")
    features, *views = (normalize(one.where(finite[:, None], 0.0), dim=1) for one in both)
    index = found.index.numpy()
    return Look(
        source=frozen.source,
        index=found.index,
        locations=found.locations,
        features=features,
        views=tuple(views),
        finite=finite,
        groups=_by_first_appearance(known),
        contrast=facts.contrast[index],
        entropy=facts.entropy[index],
        aspect=facts.aspect[index],
        cut=facts.cut[index],
        made_by=frozen.made_by,
    )


def _by_first_appearance(groups: Int64[Tensor, " n"]) -> Int64[Tensor, " n"]:
    """The same groups numbered 0, 1, ... as they come."""
    _, inverse = groups.unique(return_inverse=True)
    first = torch.full((int(inverse.max()) + 1,), len(groups)).scatter_reduce(
        0, inverse, torch.arange(len(groups)), "amin"
    )
    rank = torch.empty_like(first)
    rank[first.argsort()] = torch.arange(len(first))
    return rank[inverse]
