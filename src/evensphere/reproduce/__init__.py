"""Tables of experiments, each one command: cells of (arm, seed) run one after the other, and what they add up to.

    cells       which runs a table is made of, at which scale
    run         run them, resumable cell by cell, by as many processes as like
    surrogates  what GH's surrogate labels knew of the classes, at every kept checkpoint
    signals     what each kept checkpoint says without labels, and how good it is: a command of its own
    choice      which of these signals deserve to choose checkpoints; what regions know of classes
    results     every number, and differences between arms
    pictures    drawn from both
    summary     the page people read, made of `page`'s blocks
    speed       its section on what steps cost, from JSON lines
    publish     docs/results.md, from what is kept of the runs under benchmarks/results

Only names live here, so that listing them loads no torch.
"""

from __future__ import annotations

TABLES = {
    "pilot": "does GH help, and where? Three arms on one long-tailed data set, and a balanced one of the same size",
    "skew": "how does it depend on the imbalance? GH and its control on four data sets of one size",
    "methods": "SimCLR and BCL, three arms each",
    "levers": "GH's settings one at a time, branched off the pilot's first stages, scored on validation images only",
}

SCALES = {
    "tiny": "seconds a cell, on digits: checks the machinery, shows nothing",
    "small": "about 8 minutes a cell on one CPU core, on CIFAR-100-LT with a small network",
    "paper": "the authors' setting, for a GPU",
}
