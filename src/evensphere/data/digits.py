"""scikit-learn's handwritten digits, made long-tailed: a real task that needs no download and trains in minutes."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.datasets import load_digits

from evensphere.data.source import ArraySource, Splits, take
from evensphere.data.subset import hold_out, long_tail_splits
from evensphere.errors import InputError


def digits(
    imbalance: int | float = 20,
    profile: str = "exp",
    seed: int = 0,
    test_per_class: int = 40,
    validation_per_class: int = 20,
    largest: int | None = None,
) -> Splits:
    """1,797 grey 8x8 digits, 174 to 183 of each class (Alpaydin & Kaynak, UCI, 1998).

    test and validation: stratified, held out. probe: all other images (114 to 123 of each class). pretrain: its
    long-tailed subset; imbalance 1 is balanced, and `largest` limits the largest class. The seed chooses the parts
    *and* which digit is how rare: class difficulties differ (8 is harder than 0), so a tail that were always the same
    digit would be confounded with them.

    Pixels are uint8 [1, 8, 8]; the file's 17 levels 0..16 are spread over 0..255.
    """
    if test_per_class < 1:
        raise InputError(f"{test_per_class} test images of each class; give 1 or more.")
    loaded = load_digits()
    levels = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    labels = torch.from_numpy(loaded.target.astype(np.int64))
    everything = ArraySource("digits", torch.from_numpy(levels)[:, None], labels, [str(c) for c in range(10)])
    held, rest = hold_out(labels, test_per_class, seed, "digits test")
    return long_tail_splits(
        train=take(everything, rest),
        test=take(everything, held),
        imbalance=imbalance,
        profile=profile,
        seed=seed,
        validation_per_class=validation_per_class,
        shuffle_classes=True,
        largest=largest,
    )
