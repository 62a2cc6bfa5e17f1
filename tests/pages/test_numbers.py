"""What a page says we measured is what the committed results say: a number in prose is a claim that is worked out again
here, or is listed as no measurement of ours. The log and the results themselves are what numbers come from."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import itemgetter
from statistics import mean

import pytest
from tests.pages.measured import (
    contrast,
    lengths,
    line,
    lines,
    looks,
    once,
    own_images,
    published,
    recipe_of,
    span,
    steps_with_gh,
)
from tests.pages.reading import Page, pages

from evensphere.diagnosis.prospects import Plan, harmonization_finding

BEGIN, END = 30, 60  # epochs that GH acts from and to

GH = ("pilot", "gh", "two-stage")  # against its control
BCL = ("methods", "bcl-gh", "bcl-two-stage")
RATE = ("pilot", "two-stage", "base")  # the learning rate alone
BALANCED = ("pilot", "balanced", "base")


# --- by page: pieces of its prose, with the numbers that they must have -----------------------------------------------


def _readme() -> list[str]:
    gh, parts = contrast(*GH), line("bench-cpu.jsonl", what="GH, by its parts")
    lightly = line("peers-cpu.jsonl", what="against lightly: bf16 and bf16")
    return [
        f"it changes a linear probe's accuracy (the mean over the classes) by {gh.points[:-1]}; {gh.seeds} seeds)",
        f"GH takes {parts['median']:.2f} % of a step of our small network ({parts['low']:.2f} to {parts['high']:.2f})",
        f"SimCLR's step takes Lightly {lightly['median']:.2f} times ({lightly['low']:.2f} to {lightly['high']:.2f}) as "
        "long with ResNet-18",
    ]


def _index() -> list[str]:
    return [f"it changes a linear probe's accuracy (the mean over the classes) by {contrast(*GH).points}"]


def _comparison() -> list[str]:
    return [
        f"the learning rate alone moved the average by {contrast(*RATE).points}",
        f"GH against its control by {contrast(*GH)}",
    ]


def _export() -> list[str]:
    first, last = (
        once(f"detection example, mean loss of {which}") for which in ("the first ten steps", "steps 31 to 40")
    )
    return [f"from {first} to {last} in 40"]


def _faq() -> list[str]:
    signals = "Signals: which checkpoint is best for the tail?"
    loss, step = (published(row, signals)[0].split()[0] for row in ("the method's loss", "step (later is better)"))
    picked = published("by the rule of the other half, against the last", signals)[0]
    as_said = picked.replace("[", "(").replace("]", ")").replace(", ", " to ")
    begun, ended = (steps_with_gh(itemgetter(i), "gh") for i in (0, -1))
    views = line("bench-cpu.jsonl", what="views' share")
    small = own_images("batch 16: K from the batch", "batch 16: K from the data", "probe")
    past = own_images("batch 16: K from the data, past scores", "batch 16: K from the data", "probe")
    return [
        f"A balanced set of the same size is {contrast(*BALANCED).points} ahead of CIFAR-100-LT with SimCLR",
        f"rank correlation of {loss} with the loss, and of {step} with the step",
        f"none deserves it ({as_said} points of the few against the last, by linear probe)",
        f"it began at {span(begun, '{:.1f}')} and ended at {span(ended, '{:.1f}')}",
        f"Views took {views['median']:.1f} % of a step of our small network on a CPU ({views['low']:.1f} to "
        f"{views['high']:.1f})",
        f"moved the probe's average by {small.points}",
        f"scores to the transport problem (`harmonizer.queue`) moved it by {past}",
    ]


def _choosing() -> list[str]:
    """What the pilot and its levers say."""
    queue = contrast("levers", "gh-queue", "gh")
    early = [contrast("levers", "gh-warm-up-0.25", other) for other in ("gh", "two-stage")]
    strength = [mean(looks("gh", "gradient_ratio", epoch)) for epoch in (BEGIN, END)]
    knows, chance = looks("gh", "nmi", BEGIN), looks("gh", "nmi_chance", BEGIN)
    larger, smaller = (once(f"kNN, % of validation images, batch {b}, 42 epochs, one seed") for b in (512, 256))
    return [
        f"{recipe_of('gh-seed0')['resolved']['parameters'] / 1e6:.2f} million parameters",
        f"10 anchors in place of 100 moved the average by {contrast('levers', 'gh-anchors-10', 'two-stage').points}",
        f"0.3 moved the average by {contrast('levers', 'gh-weight-0.3', 'two-stage').points} against no GH at all",
        f"by {contrast('levers', 'gh-weight-0.3', 'gh')} against weight 1",
        f"changed the average by {early[0].points} against GH from half on, and by {early[1]} against no GH",
        f"{strength[0]:.1f} times as long as SimCLR's when it began and {strength[1]:.1f} times at the end",
        f"the labels knew little of the classes: {span(knows)} by NMI, where chance gives {span(chance)}",
        f"the two-stage rate alone, without GH, changed the average by {contrast(*RATE).points} against one cosine",
        f"kNN {smaller} against {larger}",
        f"2,048 past scores in Sinkhorn at batches of 256 changed the probe's average by {queue} against GH",
    ]


def _choosing_sizes() -> list[str]:
    """Small batches and small collections."""
    anchors = own_images("batch 16: K from the batch", "batch 16: K from the data", "probe")
    past = own_images("batch 16: K from the data, past scores", "batch 16: K from the data", "probe")
    knn, untrained = lengths("knn"), lengths("knn_untrained")
    return [
        f"a quarter of the batch, moved it by {anchors.points} against K = 52",
        f"enough to make four to a region at batches of 16, by {past}",
        f"kNN {', '.join(f'{value:.1f}' for value in knn.values())} after {', '.join(map(str, knn))} epochs, where the "
        f"untrained network has {untrained[max(knn)]:.1f}",
    ]


def _choosing_pi() -> list[str]:
    moving = [one for one in lines("population.jsonl") if one["kind"] == "drift" and one["skew"] == "zipf"]
    slow, still = ({one["way"]: one["median"] for one in moving if one["drift"] == kind} for kind in ("slow", "still"))
    paper = [slow[way] for way in ("exact float32 0.9", "exact float32 0.999")]
    others = [slow[way] for way in ("streaming 0.9", "streaming 0.97", "streaming 0.99", "exact float32 0.0")]
    average, few = contrast("levers", "gh-uniform", "two-stage"), contrast("levers", "gh-uniform", "gh", "few")
    streamed = contrast("levers", "gh-streaming", "gh")
    return [
        f"(total variation to the true shares {span(paper)}, against {span(others)} for other momenta and the "
        "streaming form)",
        f"where they have settled it is the best ({still['exact float32 0.9']:.3f} at momentum 0.9)",
        f"no difference that we could see (average {average} against no GH; few {few} against GH)",
        f"none either ({streamed.mean:+.2f} points, {streamed.low:+.2f} to {streamed.high:+.2f}, against GH)",
    ]


def _when_gh_hurts() -> list[str]:
    base = ("pilot", "gh", "base")
    rows = [(f"{contrast(*GH).points}", GH), (f"{contrast(*base)}", base), (f"{contrast(*RATE)}", RATE)]
    titles = (
        "GH against the same run without it (`two-stage`)",
        "GH against SimCLR with its own rate (`base`)",
        "the learning rate alone (`two-stage` against `base`)",
    )
    lever = {
        name: contrast("levers", f"gh-{name}", "two-stage") for name in ("weight-0.3", "uniform", "queue", "anchors-10")
    }
    skews = [
        f"{title} {contrast('skew', f'{skew}-gh', f'{skew}-two-stage')} and "
        f"{contrast('skew', f'{skew}-gh', f'{skew}-two-stage', metric='knn')}"
        for skew, title in (
            ("ir1", "no imbalance"),
            ("ir10", "imbalance 10"),
            ("step", "two steps (half of the classes with 194 images, half with 2)"),
        )
    ]
    return [
        ", ".join(skews),
        *(f"| {title} | {said} | {contrast(*pair, 'few')} |" for title, (said, pair) in zip(titles, rows, strict=True)),
        f"weight 0.3 instead of 1 {lever['weight-0.3']}; equal shares in place of pi {lever['uniform']}; 2,048 past "
        f"scores in Sinkhorn {lever['queue']}; 10 anchors instead of 100 {lever['anchors-10']}",
        f"GH against the same run without it is at {contrast(*BCL)} in the probe's average and "
        f"{contrast(*BCL, 'few')} for the few",
        f"A balanced set of the same size gains {contrast(*BALANCED).points}",
    ]


def _why_gh_hurts() -> list[str]:
    recipe = recipe_of("gh-seed0")["resolved"]
    knows, chance, knew = looks("gh", "nmi", BEGIN), looks("gh", "nmi_chance", BEGIN), looks("gh", "nmi", END)
    agree, agreed = (span(looks("gh", "views_agree", epoch), "{:.0f}") for epoch in (BEGIN, END))
    regions, classes = (span(looks("gh", f"effective_{what}", BEGIN), "{:.0f}") for what in ("regions", "classes"))
    apart = [mean(looks("gh", "uniformity.average", epoch)) for epoch in (BEGIN, END)]
    without = {key: looks("two-stage", key, END) for key in ("nmi", "views_agree", "uniformity.average")}
    features, embeddings = (
        once(f"neighbours shared by two views, % by the {what}") for what in ("features", "embeddings")
    )
    return [
        f"share {span(knows)} of their information with the classes when GH begins (shuffled classes: {span(chance)}) "
        f"and {span(knew)} at the end (the control: {span(without['nmi'])}",
        f"the same label in {agree} % of the cases, then in {agreed} % (the control: "
        f"{span(without['views_agree'], '{:.0f}')} %)",
        f"A region holds {recipe['num_images'] / recipe['anchors']:.0f} images on average",
        f"({regions} effective regions, {classes} effective classes)",
        f"the mean distance of the classes' centroids from {apart[0]:.2f} to {apart[1]:.2f} (without it, it rose to "
        f"{mean(without['uniformity.average']):.2f})",
        f"two views of an image shared {features} % of their 10 neighbours by the features and {embeddings} % by the "
        "embeddings",
    ]


CLAIMS: dict[str, list[Callable[[], list[str]]]] = {
    "README.md": [_readme],
    "docs/index.md": [_index],
    "docs/start/comparison.md": [_comparison],
    "docs/export.md": [_export],
    "docs/faq.md": [_faq],
    "docs/choosing.md": [_choosing, _choosing_pi, _choosing_sizes],
    "docs/when-gh-hurts.md": [_when_gh_hurts, _why_gh_hurts],
}


def claims(page: str) -> list[str]:
    return [claim for make in CLAIMS.get(page, ()) for claim in make()]


# --- what is no measurement of ours -----------------------------------------------------------------------------------

# settings, thresholds, versions, the authors' numbers and mathematics: text that is there for another reason, by page
OTHER_NUMBERS = {
    "README.md": ["Python 3.11 or newer"],
    "docs/choosing.md": [
        "our smoke tests give BYOL and SimSiam 0.1.",
        "momentum 0.9 in the warm-up and 0.999 afterwards, counted every 20 epochs",
        "SGD, 0.5 for a batch of 512, ten epochs of warm-up, a cosine to 0.3 at the stage change (0.1 on the large",
        "On digits, 0.1 and 0.3 could not be told apart",
        "0.5 x B/512 for SGD (0.6 with LARS, 0.001 with AdamW), the middle 0.6 of it",
        "learns reliably at 0.1, and not at 0.3",
        "10.8 million images seen",
    ],
    "docs/design.md": ["0.5 of the run", "below 30 % it says"],
    "docs/evaluation.md": ["**95 % interval**", "80 % power"],
    "docs/faq.md": ["exactly that: 9.21 for 100 anchors, 6.93 for 32", "after kill -9"],
    "docs/how-gh-works.md": ["cosine -1/(K-1)", "softmax(s / 0.1)", "sum(Q * S) / 0.05", "2 ln K, 9.21 for K = 100"],
    "docs/index.md": ["Python 3.11 or newer"],
    "docs/integrations.md": [
        *("Lightly 1.6", "Lightning 2.6.6", "Lightning 2.6", "Accelerate 1.15"),
        "0.99 covers the last 100 batches",
    ],
    "docs/rare-and-curate.md": ["Below 30 % the commands say"],
    "docs/releasing.md": ["Until 1.0", "Python 3.11, CPU", "Python 3.13, CPU"],
    "docs/report.md": ["has the 95 % interval"],
    "docs/start/own-loop.md": ["such as 0.5"],
    "docs/when-gh-hurts.md": ["less than 30 % of their neighbours"],
}

# a number with a point, a sign or a %: 0.5, .015, +3, 30 %. Not versions, dates and names: 0.1.8, 2026-11-24, x.5
_NUMBER = re.compile(r"(?<![\w.,/+-])(?:[+-]?\d[\d,]*\.\d+|\.\d+|[+-]\d+|\d+(?= %))(?![\w]|\.\d|,\d)")
_CODE = re.compile(r"`[^`]*`|\]\([^)]*\)")


def plain(text: str) -> str:
    """In one line, a blank between words."""
    return " ".join(text.split())


PAGES = [page for page in pages() if "reference" not in page.path.parts]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_claim_is_what_the_results_say(page: Page) -> None:
    missing = [claim for claim in claims(page.name) if claim not in plain(page.prose)]
    assert not missing, "the results say otherwise"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_is_a_claim_or_known_to_be_none(page: Page) -> None:
    text = plain(page.prose)
    for known in (*claims(page.name), *OTHER_NUMBERS.get(page.name, ())):
        assert known in text, f"no longer there: {known}"
        text = text.replace(known, "")
    found = [text[max(0, n.start() - 60) : n.end() + 30] for n in _NUMBER.finditer(_CODE.sub("", text))]
    assert not found, "say where they come from"


def test_a_diagnosis_says_what_the_results_say() -> None:
    plan = Plan(9_754, 256, 60, 2_280, 100, 1.0, 128, 1_140, None, None)
    agree = span(looks("gh", "views_agree", BEGIN), "{:.0f}")
    for claim in (
        f"GH at weight 1 changed the average by {contrast(*GH).points} and that of the few by {contrast(*GH, 'few')}",
        f"weight 0.3 the average by {contrast('levers', 'gh-weight-0.3', 'two-stage')}",
        f"the same label in {agree} % of the cases when GH began",
    ):
        assert claim in harmonization_finding(plan).evidence
