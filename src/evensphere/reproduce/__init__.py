"""Tables of experiments, each one command: cells of (arm, seed) run one after the other, and what they add up to.

    arms        what a row of a table is: a recipe changed in one thing
    cells       which runs a table is made of, at which scale
    run         run them, resumable cell by cell, by as many processes as like
    measures    what some tables ask of a finished run beyond its scores, made once and kept in its folder
    uniformity, transfer, supervised, population    these tables' numbers and pages, made of rows
    rows        arms and differences of any number that has seeds
    pages       which file makes a table's page
    surrogates  what GH's surrogate labels knew of the classes, at every kept checkpoint
    signals     what each kept checkpoint says without labels, and how good it is: a command of its own
    choice      which of these signals deserve to choose checkpoints; what regions know of classes
    results     every number, and differences between arms
    pictures    drawn from both
    cost, circles   the tables without runs, what a step costs and the toy in two dimensions; direct lists them
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
    "cifar100": "the paper's main table: imbalance 100, 50, 10 with SimCLR, Focal, SDCLR, DnC and BCL, three arms each",
    "imagenet-lt": "the same methods and arms on ImageNet-LT; scales tiny and paper, the latter with --data PATH",
    "places-lt": "the same methods and arms on Places-LT; scales tiny and paper, the latter with --data PATH",
    "families": "self-supervised methods beyond the paper's main table, beside SimCLR; GH and its control each",
    "cost": "what a step costs on this machine with GH and without, method by method; 10 rounds for each of --seeds",
    "toy": "the toy in two dimensions, --seeds pairs of networks: how far the largest cluster spreads, what it leaves",
    "uniformity": "how classes lie on the sphere (the paper's two measures) and what clusters know of them",
    "transfer": "the frozen encoders on other labelled images (--to NAME=PATH)",
    "supervised": "whole encoders fine-tuned on long-tailed labels, against the same network from scratch",
    "population": "what pi learns over time",
}

# tables without runs, which are measured directly
DIRECT = ("cost", "toy")

SCALES = {
    "tiny": "seconds a cell, on digits: checks the machinery, shows nothing",
    "small": "10 to 20 minutes a cell on one CPU core, on CIFAR-100-LT with a small network",
    "paper": "the authors' setting, for a GPU",
}
