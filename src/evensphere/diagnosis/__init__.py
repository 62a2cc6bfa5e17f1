"""A run, or images before any run, seen by somebody who has no labels: findings with numbers, evidence and advice.

    look        what a network makes of some of the images, at any kept checkpoint
    eye         what looks at images before training: weights on the disk, or `simple` statistics
    course      how a run went: breaking off, length, loss, Sinkhorn
    space       how much of the space the embeddings use: collapse
    tail        density, neighbourhoods and detail, tenth by tenth, and over the run
    regions     region sizes, their effective number, their skew
    prospects   the number of regions, the length, whether GH is likely to help
    diagnose    all of it, from a path to findings
    page        findings as words and as a page; `pictures` draws their charts

A finding says what was found in one sentence; what cannot be relied on says so itself.
"""
