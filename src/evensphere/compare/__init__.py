"""Two arms against each other: how far apart they are, and how sure that is.

    sides       run folders -> two arms, paired by seed, and what sets their recipes apart; refusals
    difference  what was predicted for the same images -> differences by group of classes, intervals, one sentence
    labels      the same on anybody's own images with a few labels, by cross-validation

`compare` answers from run folders alone; only `labels` needs the encoders.
"""

from evensphere.compare.difference import Comparison, compare

__all__ = ["Comparison", "compare"]
