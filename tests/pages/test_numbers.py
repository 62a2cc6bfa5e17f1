"""What a page says we measured is what the committed results say: a number in prose is a claim that is worked out again
here, or is listed as no measurement of ours. The log and the results themselves are what numbers come from."""

from __future__ import annotations

import re
from statistics import mean

import pytest
from tests.pages.measured import contrast, line, lines, looks, once, published, recipe_of, span, steps_with_gh
from tests.pages.reading import Page, pages

SIGNALS = "Signals: which checkpoint is best for the tail?"
BEGIN, END = 30, 60  # epochs that GH acts from and to


def claims() -> dict[str, list[str]]:
    """By page: pieces of its prose with the numbers that they must have."""
    gh, gh_base = contrast("pilot", "gh", "two-stage"), contrast("pilot", "gh", "base")
    rate, balanced = contrast("pilot", "two-stage", "base"), contrast("pilot", "balanced", "base")
    few = [contrast("pilot", *pair, "few") for pair in (("gh", "two-stage"), ("gh", "base"), ("two-stage", "base"))]
    lever = {
        name: contrast("levers", f"gh-{name}", "two-stage") for name in ("weight-0.3", "uniform", "queue", "anchors-10")
    }
    knows, chance, knew = looks("gh", "nmi", BEGIN), looks("gh", "nmi_chance", BEGIN), looks("gh", "nmi", END)
    regions, classes = looks("gh", "effective_regions", BEGIN), looks("gh", "effective_classes", BEGIN)
    strength = looks("gh", "gradient_ratio", BEGIN), looks("gh", "gradient_ratio", END)
    agree = looks("gh", "views_agree", BEGIN), looks("gh", "views_agree", END)
    apart = looks("gh", "uniformity.average", BEGIN), looks("gh", "uniformity.average", END)
    losses = steps_with_gh(lambda steps: steps[0]["gh"]), steps_with_gh(lambda steps: steps[-1]["gh"])
    recipe = recipe_of("gh-seed0")
    drift = {
        (one["way"], one["drift"]): one["median"]
        for one in lines("population.jsonl")
        if one["what"] == "drift" and one["skew"] == "zipf"
    }
    slow = {way: value for (way, kind), value in drift.items() if kind == "slow"}
    lagging = [slow[way] for way in ("exact float32 0.9", "exact float32 0.999")]
    others = [slow[way] for way in ("streaming 0.9", "streaming 0.97", "streaming 0.99", "exact float32 0.0")]
    ranks = [published(row, SIGNALS)[0].split()[0] for row in ("the method's loss", "step (later is better)")]
    views = line("bench-cpu.jsonl", what="views' share")
    return {
        "README.md": [f"we find no effect ({gh.points} in average against the proper control, {gh.seeds} seeds)"],
        "docs/index.md": [f"no effect was found: {gh.points} in average against the proper control"],
        "docs/start/comparison.md": [
            f"the learning rate alone moved the average by {rate.points}",
            f"GH against its control by {gh}",
        ],
        "docs/faq.md": [
            f"A balanced set of the same size is {balanced.points} ahead of CIFAR-100-LT with SimCLR",
            f"rank correlation with the few {ranks[0]}; of the step, {ranks[1]}",
            f"none deserves it ({_as_said(published('by the rule of the other half, against the last', SIGNALS)[0])} points "
            "of the few against the last, by linear probe)",
            f"it began at {span(losses[0], '{:.1f}')} and ended at {span(losses[1], '{:.1f}')}",
            f"Views took {views['median']:.1f} % of a step of our small network on a CPU ({views['low']:.1f} to "
            f"{views['high']:.1f})",
        ],
        "docs/choosing.md": [
            f"{recipe['resolved']['parameters'] / 1e6:.2f} million parameters",
            f"10 anchors in place of 100 moved the average by {lever['anchors-10'].points} against the run without GH",
            f"0.3 moved the average by {lever['weight-0.3'].points} against no GH at all",
            f"by {contrast('levers', 'gh-weight-0.3', 'gh')} against weight 1",
            f"{mean(strength[0]):.1f} times as long as SimCLR's when it began and {mean(strength[1]):.1f} times at the end",
            f"the labels knew little of the classes: {span(knows)} by NMI, where chance gives {span(chance)}",
            f"(total variation to the true shares {span(lagging)}, against {span(others)} for other momenta and the streaming "
            f"form); where they have settled it is the best ({drift['exact float32 0.9', 'still']:.3f} at momentum 0.9)",
            f"Equal shares in place of pi made no difference that we could see (average {lever['uniform']} against no GH; few "
            f"{contrast('levers', 'gh-uniform', 'gh', 'few')} against GH)",
            f"the two-stage rate alone, without GH, changed the average by {rate.points} against one cosine",
            f"2,048 past scores in Sinkhorn at batches of 256 changed the average by {contrast('levers', 'gh-queue', 'gh')} "
            "against GH",
            f"kNN {once('kNN, % of validation images, batch 256, 42 epochs, one seed')} against "
            f"{once('kNN, % of validation images, batch 512, 42 epochs, one seed')}",
        ],
        "docs/export.md": [
            f"from {once('detection example, mean loss of the first ten steps')} to "
            f"{once('detection example, mean loss of steps 31 to 40')} in 40",
        ],
        "docs/when-gh-hurts.md": [
            f"| GH against the same run without it (`two-stage`) | {gh.points} | {few[0]} |",
            f"| GH against SimCLR with its own rate (`base`) | {gh_base} | {few[1]} |",
            f"| the learning rate alone (`two-stage` against `base`) | {rate} | {few[2]} |",
            f"weight 0.3 instead of 1 {lever['weight-0.3']}; equal shares in place of pi {lever['uniform']}; 2,048 past "
            f"scores in Sinkhorn {lever['queue']}; 10 anchors instead of 100 {lever['anchors-10']}",
            f"A balanced set of the same size gains {balanced.points}",
            f"share {span(knows)} of their information with the classes when GH begins (shuffled classes: {span(chance)}) and "
            f"{span(knew)} at the end",
            f"the same label in {span(agree[0], '{:.0f}')} % of the cases, then in {span(agree[1], '{:.0f}')} %",
            f"A region holds {recipe['resolved']['num_images'] / recipe['resolved']['anchors']:.0f} images on average",
            f"({span(regions, '{:.0f}')} effective regions, {span(classes, '{:.0f}')} effective classes)",
            f"the mean distance of the classes' centroids from {mean(apart[0]):.2f} to {mean(apart[1]):.2f}",
            f"two views of an image shared {once('neighbours shared by two views, % by the features')} % of their 10 "
            f"neighbours by the features and {once('neighbours shared by two views, % by the embeddings')} % by the embeddings",
        ],
    }


def _as_said(cell: str) -> str:
    """ "-0.12 [-0.26, -0.00]" as pages have it: -0.12 (-0.26 to -0.00)"""
    return cell.replace("[", "(").replace("]", ")").replace(", ", " to ")


# --- what is no measurement of ours -----------------------------------------------------------------------------------

# settings, thresholds, versions, the authors' numbers and mathematics: text that is there for another reason, by page
OTHER_NUMBERS = {
    "README.md": ["Python 3.11 or newer"],
    "docs/choosing.md": [
        "our smoke tests give BYOL and SimSiam 0.1.",
        "momentum 0.9 in the warm-up and 0.999 afterwards, counted every 20 epochs",
        "SGD, 0.5 for a batch of 512, ten epochs of warm-up, a cosine to 0.3 at the stage change (0.1 on the large sets)",
        "On digits, 0.1 and 0.3 could not be told apart",
        "0.5 x B/512 for SGD (0.6 with LARS, 0.001 with AdamW), the middle 0.6 of it",
        "learns reliably at 0.1, and not at 0.3",
    ],
    "docs/design.md": ["0.5 of the run", "below 30 % it says"],
    "docs/evaluation.md": ["**95 % interval**", "80 % power"],
    "docs/faq.md": ["exactly that: 9.21 for 100 anchors, 6.93 for 32", "after kill -9"],
    "docs/how-gh-works.md": ["cosine -1/(K-1)", "softmax(s / 0.1)", "sum(Q * S) / 0.05", "2 ln K, 9.21 for K = 100"],
    "docs/index.md": ["Python 3.11 or newer"],
    "docs/integrations.md": ["Lightly 1.6", "Lightning 2.6", "Accelerate 1.15", "0.99 covers the last 100 batches"],
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
    missing = [claim for claim in claims().get(page.name, []) if claim not in plain(page.prose)]
    assert not missing, "the results say otherwise"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_number_is_a_claim_or_known_to_be_none(page: Page) -> None:
    text = plain(page.prose)
    for known in (*claims().get(page.name, []), *OTHER_NUMBERS.get(page.name, ())):
        assert known in text, f"no longer there: {known}"
        text = text.replace(known, "")
    found = [text[max(0, n.start() - 60) : n.end() + 30] for n in _NUMBER.finditer(_CODE.sub("", text))]
    assert not found, "say where they come from"
