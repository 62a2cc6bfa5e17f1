"""From arms to plain sentences: the answer, the summary, and what a reader must know before believing either.

Every number in a sentence is computed from the files.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from evensphere.report.arms import Arm, Pair, evaluated, main_metric, pairs, runs_of, spread
from evensphere.report.record import METRICS, Json, RunRecord, number, part
from evensphere.report.wording import PERCENT, capital, count, listing

ENOUGH_SEEDS = 3  # below this a difference between arms is not reported as evidence


_COLLAPSE_WARNINGS = ("collapse", "line")  # of the watchdog (engine/watchdog.py)
_COLLAPSE_FINDINGS = ("collapse", "finite", "alike")  # of a diagnosis (diagnosis/)


def troubles(records: Sequence[RunRecord]) -> list[str]:
    """What must be read before the answer: runs that went wrong, and runs that are not at their end."""
    return [f"{run.label} {trouble}" for run in records if run.recipe for trouble in _troubles_of(run)]


def _troubles_of(record: RunRecord) -> list[str]:
    said = []
    if (sign := collapse_of(record)) is not None:
        said.append(f"has collapsed ({sign}). Do not use its encoder: what it scores says nothing of rare things.")
    if not record.finished:
        how = "was stopped" if record.stopped else "is not finished: it was cut short, or still runs,"
        said.append(f"{how} at epoch {_epoch_reached(record)} of {record.recipe['epochs']:g}, so nothing is final.")
    return said


def collapse_of(record: RunRecord) -> str | None:
    """The sign of a network that tells nothing apart, in words; None for none that holds at the end of the log."""
    for finding in record.findings:
        if finding.name in _COLLAPSE_FINDINGS and finding.level == "alarm":
            return finding.sentence.rstrip(".")
    for warning in record.warnings:
        if warning.get("kind") in _COLLAPSE_WARNINGS and warning["until"] is None:
            return str(warning.get("sentence", "its embeddings are all alike")).partition(";")[0]
    return None


def headline(arms: Sequence[Arm]) -> str:
    """The answer to "did my rare things survive?" in one or two sentences."""
    metric = main_metric(arms)
    if metric is None:
        return "Not known yet: no run here has been evaluated on labelled images."
    for pair in pairs(arms, metric):
        if pair.differences("few"):
            return _compared(pair)
    first = evaluated(arms, metric)[0]
    average, few, many = (first.spread(metric, key) for key in ("average", "few", "many"))
    assert average is not None
    if few is None or many is None:
        return f"The encoder scores {average.text}{PERCENT} on average."
    gap = round(many.mean, 1) - round(few.mean, 1)  # so that the sentence's own numbers add up
    return (
        f"The rarest classes score {few.mean:.1f}{PERCENT}, the most common {many.mean:.1f}{PERCENT}: "
        f"{abs(gap):.1f} points {'behind' if gap >= 0 else 'ahead'}."
    )


def _compared(pair: Pair) -> str:
    """Both arms' means over the seeds they share, and whether the seeds agree."""
    treated, control = (fmean(scores) for scores in zip(*pair.shared("few"), strict=True))
    changes = pair.differences("few")
    start = capital(
        f"{pair.treated.label}, the rarest classes score {treated:.1f}{PERCENT}, "
        f"{pair.control.label} {control:.1f}{PERCENT}: "
    )
    if len(changes) < ENOUGH_SEEDS:
        return f"{start}a hint from {count(len(changes), 'seed')}, not yet evidence."
    up = fmean(changes) >= 0
    agree = sum((change > 0) == up for change in changes if change)
    return f"{start}{'higher' if up else 'lower'} in {agree} of {len(changes)} seeds."


def summary(records: Sequence[RunRecord], arms: Sequence[Arm]) -> dict[str, list[str]]:
    """Topic -> sentences; topics with nothing to say are left out."""
    metric = main_metric(arms)
    topics = {
        "Trained": [_trained([arm for arm in arms if arm.recipe == name]) for name in recipe_names(arms)],
        "Result": [_result(arm, metric) for arm in evaluated(arms, metric)] if metric else [],
        "Difference": [_difference(pair) for pair in pairs(arms, metric)] if metric else [],
        "Against untrained": [_against_untrained(arm) for arm in arms],
        "Region sizes": [_regions(arm) for arm in arms],
        "Please note": [_doubled(records, arms), *[said for record in records for said in cautions(record)]],
    }
    said = {topic: [sentence for sentence in sentences if sentence] for topic, sentences in topics.items()}
    return {topic: sentences for topic, sentences in said.items() if sentences}


def recipe_names(arms: Sequence[Arm]) -> list[str]:
    return list(dict.fromkeys(arm.recipe for arm in arms))


def _trained(arms: Sequence[Arm]) -> str:
    """The arms of one recipe."""
    epochs = listing([f"{epochs:g}" for epochs in sorted({run.recipe["epochs"] for _, run in runs_of(arms)})])
    seeds = listing([f"{arm.label} ({count(len(arm.runs), 'seed')})" for arm in arms])
    return f"{_what_was_trained(arms[0].runs[0])} for {epochs} epochs (recipe {arms[0].recipe}): {seeds}."


def _what_was_trained(run: RunRecord) -> str:
    """ "The encoder (resnet) was trained with simclr on 610 images of digits", without what the recipe does not say."""
    backbone, method, data = (part(run.recipe, name).get("name") for name in ("backbone", "method", "data"))
    images = number(run.resolved.get("num_images"))
    what = "The encoder" + (f" ({backbone})" if backbone else "") + " was trained"
    stages = part(run.recipe, "stages").get("name")
    how = (f" with {method}" if method else "") + (f" in the stages of {stages}" if stages else "")
    on = f" on {count(int(images), 'image') if images else 'images'}" + (f" of {data}" if data else "")
    return what + how + on


def _result(arm: Arm, metric: str) -> str:
    average, few, gap = (arm.spread(metric, key) for key in ("average", "few", "std"))
    assert average is not None
    rare = f"few {few.text}{PERCENT}" if few else "no class counts as few"
    between = f", spread between the groups {gap.text} points" if gap else ""
    return capital(f"{arm.label}: average {average.text}{PERCENT}, {rare}{between} ({METRICS[metric]}).")


def _difference(pair: Pair) -> str:
    """Differences are taken seed by seed: a seed shares its data order and first weights, so its noise cancels."""
    average, few, gap = (spread(pair.differences(key)) for key in ("average", "few", "std"))
    start = f"From {pair.control.label} to {pair.treated.label}: "
    if average is None:
        return f"{start}no seed was run in both, so no difference is given."
    parts = [f"average {average.signed}"]
    parts += [f"few {few.signed}"] if few else []
    parts += [f"spread between the groups {gap.signed}"] if gap else []
    if average.seeds >= ENOUGH_SEEDS:
        return f"{start}{', '.join(parts)} points (mean ± standard deviation over {average.seeds} seeds)."
    seeds = count(average.seeds, "seed")
    return f"{start}{', '.join(parts)} points with {seeds}; with fewer than {ENOUGH_SEEDS} this is not yet evidence."


def _against_untrained(arm: Arm) -> str:
    trained, untrained = arm.spread("knn", "average"), arm.spread("knn_untrained", "average")
    if trained is None or untrained is None:
        return ""
    verdict = "" if trained.mean > untrained.mean else ": training has not helped"
    return capital(
        f"{arm.label}, kNN scores {trained.text}{PERCENT} on the trained encoder, "
        f"{untrained.text}{PERCENT} on the same encoder untrained{verdict}."
    )


def _regions(arm: Arm) -> str:
    last = [run.populations[-1] for run in arm.runs if run.populations]
    effective = spread(event["effective"] for event in last)
    if effective is None:
        return ""
    priors = [event["prior"] for event in last]
    return capital(
        f"{arm.label}, the images fill {effective.text} effective regions of {len(priors[0])}; "
        f"the largest region size is {100 * fmean(map(max, priors)):.1f}{PERCENT} of the images, "
        f"the smallest {100 * fmean(map(min, priors)):.2f}{PERCENT}."
    )


def group_reading(arms: Sequence[Arm], metric: str) -> str:
    """How to read the picture of the groups."""
    several = any(len(arm.scores(metric, "average")) > 1 for arm in arms)
    dots = "dots are means over seeds, bars their standard deviation" if several else bars_of_one_seed(arms, metric)
    single = any(len(arm.scores(metric, "average")) == 1 for arm in arms)
    also = f"; where there is {bars_of_one_seed(arms, metric)}" if several and single else ""
    return f"{capital(METRICS[metric])} on test images: {dots}{also}."


def bars_of_one_seed(arms: Sequence[Arm], metric: str) -> str:
    """What the bars of arms with one seed are."""
    scores = [found for arm in arms if (found := arm.spread(metric, "average")) is not None]
    known = any(found.interval is not None for found in scores)
    return "1 seed" + (", bars are 95 % intervals for other test images" if known else "")


def group_rule(arms: Sequence[Arm]) -> str:
    """How classes became many, medium and few, and what guessing would score."""
    run = next(run for run in arms[0].runs if run.results)
    rules = {
        "thirds": "Classes are sorted by their training images and cut into thirds: many, medium and few.",
        "shots": "Many: classes with over 100 training images; medium: 20 to 100; few: under 20.",
    }
    rule = rules.get(str(run.results.get("group_rule")), "Classes are grouped by their training images.")
    return rule + (f" Guessing would score {100 / len(run.classes):.1f} %." if run.classes else "")


def _doubled(records: Sequence[RunRecord], arms: Sequence[Arm]) -> str:
    kept = {id(run) for _, run in runs_of(arms)}
    left_out = [record.label for record in records if record.recipe and id(record) not in kept]
    return f"{listing(left_out)}: same recipe and seed as another run, counted once." if left_out else ""


def cautions(record: RunRecord) -> list[str]:
    """What a reader must know about one run before believing its numbers."""
    if record.recipe:
        said = [*record.problems, _why_it_stopped(record), _how_far_it_came(record), _why_no_scores(record)]
    else:
        damage = "the folder is damaged, so this run is left out: " + " ".join(record.problems)
        said = [damage, _why_it_stopped(record)]
    said += [_left_out(record), *(_warning(record, warning) for warning in record.warnings)]
    if record.skipped:
        said.append(f"{count(len(record.skipped), 'unreadable image')} skipped (listed below).")
    return [f"{record.label}: {sentence}" for sentence in said if sentence]


def _why_it_stopped(record: RunRecord) -> str:
    """The reason that training logged; for runs of programs that go on regardless, a loss that says the same."""
    if record.stopped:
        return f"training stopped. {record.stopped}"
    bad = next((event for event in record.steps if "loss" in event and number(event["loss"]) is None), None)
    if bad is None:
        return ""
    return f"the loss became non-finite at step {bad.get('step', 'unknown')}, so its encoder is not usable."


def _left_out(record: RunRecord) -> str:
    """Steps that were not taken, with the first one's reason."""
    if not record.left_out:
        return ""
    first = record.left_out[0]
    steps = count(len(record.left_out), "step")
    return f"{steps} left out, the first ({first.get('step', 'unknown')}) because {first.get('reason', 'of nothing')}."


def _warning(record: RunRecord, warning: Json) -> str:
    """What was wrong, and from when to when."""
    begin, until = record.epoch_of(warning), warning["until"]
    end = None if until is None else record.epoch_of(until)
    lasting = "to the end" if end is None else f"to epoch {end:.1f}"
    since = "" if begin is None else f"from epoch {begin:.1f} {lasting}, "
    return f"warning: {since}{warning.get('sentence', 'of an unknown kind')}."


def _how_far_it_came(record: RunRecord) -> str:
    if record.finished:
        return ""
    return f"not finished, at epoch {_epoch_reached(record)} of {record.recipe['epochs']:g}."


def _epoch_reached(record: RunRecord) -> int:
    return int(max((epoch for event in record.steps if (epoch := record.epoch_of(event)) is not None), default=0.0))


def _why_no_scores(record: RunRecord) -> str:
    if any(record.score(metric, "average") is not None for metric in METRICS):
        return ""
    if record.results:
        return "evaluated without labels, so many, medium and few are not known."
    return "no eval.json, so many, medium and few are not known (evensphere evaluate writes it from labelled images)."
