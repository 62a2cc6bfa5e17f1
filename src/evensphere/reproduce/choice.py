"""What the measured signals say (`signals` measures them): two sections of docs/results.md.

Signals        how well each label-free signal ranks a run's checkpoints by the accuracy of the few, and what picking a
               checkpoint by one would have gained over taking the last
What regions know of classes    how region sizes, densities and skew estimates go with the sizes of the classes

Every verdict is computed from the lines. Intervals over runs resample whole runs; runs of one seed share their images,
so with few seeds they are rather too narrow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from evensphere.errors import InputError
from evensphere.metrics.regions import Estimate
from evensphere.ops.draw import permutation, seed_for
from evensphere.report.wording import count, listing
from evensphere.reproduce.page import Block, Heading, Paragraph, Picture, Rows
from evensphere.reproduce.pictures import medians_picture
from evensphere.reproduce.results import paired_difference

SIGNALS_FILE = "signals.jsonl"

Line = dict[str, Any]

JUDGES = {"probe": "linear probe", "knn": "kNN"}
BALANCED = "balanced"

_LEAST_CHECKPOINTS = 4  # a rank correlation of fewer says nothing
_LEAST_RUNS = 4  # two to fit a rule on, two to judge it on
_RESAMPLES = 10_000

NAMES = {
    "step": "step (later is better)",
    "loss": "the method's loss",
    "rank_me_features": "RankMe of features",
    "rank_me_embeddings": "RankMe of embeddings",
    "rank_me_tail": "RankMe of the sparsest tenth",
    "effective_rank_features": "effective rank of features",
    "effective_rank_embeddings": "effective rank of embeddings",
    "lidar_features": "LiDAR of features",
    "lidar_embeddings": "LiDAR of embeddings",
    "alpha_req_features": "alpha-ReQ of features",
    "alignment_embeddings": "alignment of embeddings",
    "uniformity_embeddings": "uniformity of embeddings",
    "consistency": "neighbourhood consistency",
    "consistency_tail": "the same of the sparsest tenth",
    "skew": "skew of GH's regions",
}

Run = Sequence[Line]  # the lines of one run, by step


def signals_sections(archive: Path, pictures: Path) -> list[Block]:
    """Both sections; nothing where nothing was measured. pictures: the folder for PNGs."""
    lines = read_signals(archive / SIGNALS_FILE)
    if not lines:
        return []
    return [*_choice_section(lines, pictures), *_knowledge_section(lines)]


def read_signals(file: Path) -> list[Line]:
    """The lines measured so far, by run and step; none if there is no file. Raises InputError for a damaged one."""
    if not file.exists():
        return []
    try:
        lines = [json.loads(text) for text in file.read_text().splitlines()]
        for line in lines:
            itemgetter("arm", "seed", "signals", "accuracies")(line)  # a KeyError where one is missing
        return sorted(lines, key=lambda line: (line["run"], line["step"], run_of(line)))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} cannot be read ({error}); mend it or measure again into another file.") from error


# --- choosing a checkpoint --------------------------------------------------------------------------------------------


def _choice_section(lines: Sequence[Line], pictures: Path) -> list[Block]:
    runs = [run for run in by_run(lines) if len(run) >= _LEAST_CHECKPOINTS]
    title = Heading(1, "Signals: which checkpoint is best for the tail?")
    if not runs:
        return [title, Paragraph(f"No run with {_LEAST_CHECKPOINTS} checkpoints was measured yet.")]
    found = {judge: {signal: rank_correlation(runs, signal, judge) for signal in NAMES} for judge in JUDGES}
    rules = {judge: judged_picks(runs, judge) for judge in JUDGES}
    return [
        title,
        Paragraph(
            f"{count(len(runs), 'run')} of {listing(sorted({_length(run[0]) for run in runs}))} "
            f"({listing(sorted({run[0]['arm'] for run in runs}))}), {count(sum(map(len, runs)), 'checkpoint')}. "
            "Signals are computed of training images without labels, accuracies on validation images; the numbers are "
            "Spearman's rank correlations of a signal and the accuracy of the few over a run's checkpoints, averaged "
            "over runs, with 95 % intervals from resampling runs. 1: the signal orders checkpoints as the labels do; "
            "-1: the other way round."
        ),
        Paragraph(verdict(rules)),
        *_picture(found["probe"], pictures),
        Rows(
            ["signal", *(f"few, {name}" for name in JUDGES.values())],
            [[NAMES[signal], *(_spell(found[judge][signal]) for judge in JUDGES)] for signal in NAMES],
        ),
        Rows(
            ["picking a checkpoint, points of the few", *JUDGES.values()],
            [
                ["by the rule of the other half, against the last", *(_spell(rules[judge].gain) for judge in JUDGES)],
                ["the best there was, against the last", *(_spell(rules[judge].headroom) for judge in JUDGES)],
                ["the rules", *(listing(rules[judge].rules) or "-" for judge in JUDGES)],
            ],
        ),
    ]


def by_run(lines: Sequence[Line]) -> list[Run]:
    """The lines of each run, by step."""
    runs = dict.fromkeys(run_of(line) for line in lines)
    return [[line for line in lines if run_of(line) == run] for run in runs]


def run_of(line: Line) -> tuple[str, str, int]:
    """What tells a run from those of the same folder name, of another recipe or length."""
    return str(line["run"]), str(line["recipe"]), int(line["epochs"])


def _length(line: Line) -> str:
    return f"{line['recipe']} with {line['epochs']} epochs"


def rank_correlation(runs: Sequence[Run], signal: str, judge: str) -> Estimate | None:
    """Mean over runs of Spearman's correlation of a signal and the accuracy of the few, with its interval. A run whose
    signal is missing or does not vary is left out; None without any other."""
    found = [_within(run, signal, judge) for run in runs]
    return over_runs([one for one in found if one is not None], f"{signal}/{judge}")


def _within(run: Run, signal: str, judge: str) -> float | None:
    values, few = [line["signals"].get(signal) for line in run], [_few(line, judge) for line in run]
    if None in values or len(set(values)) < 2 or len(set(few)) < 2:
        return None
    return float(spearmanr(values, few).statistic)


def _few(line: Line, judge: str) -> float:
    return float(line["accuracies"][judge]["few"])


def over_runs(values: Sequence[float], purpose: str) -> Estimate | None:
    """The mean and its 95 % interval (bootstrap over runs); of one or two runs there is no interval, but NaN."""
    if not values:
        return None
    mean = fmean(values)
    if len(values) < 3:
        return Estimate(mean, float("nan"), float("nan"))
    generator = np.random.default_rng(seed_for(0, f"choice/{purpose}"))
    means = generator.choice(np.asarray(values), (_RESAMPLES, len(values))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(mean, float(low), float(high))


class Picks(NamedTuple):
    """What picking checkpoints gave, in points of the few against each run's last checkpoint.

    gain: by a rule fitted on the half of the runs that the run is not in. headroom: by the labels themselves.
    rules: the signals that the two halves would pick by. None and empty for too few runs.
    """

    gain: Estimate | None
    headroom: Estimate | None
    rules: list[str]


def judged_picks(runs: Sequence[Run], judge: str) -> Picks:
    """Fit a rule on one half of the runs and judge it on the other; then the other way round.

    A rule is a signal and whether more or less of it is better; fitting takes the one whose picks gain most.
    """
    headroom = over_runs([max(_few(line, judge) for line in run) - _few(run[-1], judge) for run in runs], "headroom")
    if len(runs) < _LEAST_RUNS:
        return Picks(None, headroom, [])
    order = permutation(0, "choice/halves", 0, len(runs)).tolist()
    halves = [[runs[i] for i in order[::2]], [runs[i] for i in order[1::2]]]
    gains, rules = [], []
    for fitted, judged in (halves, halves[::-1]):
        signal, sign = max(
            ((signal, sign) for signal in NAMES for sign in (1, -1)),
            key=lambda rule: fmean(_gain(run, rule[0], rule[1], judge) for run in fitted),
        )
        gains += [_gain(run, signal, sign, judge) for run in judged]
        rules.append(f"{'most' if sign > 0 else 'least'} {NAMES[signal].partition(' (')[0]}")
    return Picks(over_runs(gains, f"gain/{judge}"), headroom, list(dict.fromkeys(rules)))


def _gain(run: Run, signal: str, sign: int, judge: str) -> float:
    """Of the picked checkpoint over the last, in points; of equally good ones the last is picked."""
    values = [line["signals"].get(signal) for line in run]
    if None in values:
        return 0.0
    best = max(range(len(run)), key=lambda i: (sign * values[i], i))
    return _few(run[best], judge) - _few(run[-1], judge)


def verdict(rules: dict[str, Picks]) -> str:
    """Whether a signal deserves to choose checkpoints."""
    gains = {judge: picks.gain for judge, picks in rules.items()}
    if None in gains.values():
        return "**Too few runs for a verdict; the last checkpoint stays the default.**"
    said = listing([f"{_spell(gain)} by {JUDGES[judge]}" for judge, gain in gains.items()])
    if all(gain is not None and gain.low > 0 for gain in gains.values()):
        return (
            f"**Picking pays:** checkpoints picked by a rule fitted on other runs are ahead of the last by {said} "
            "(points of the few)."
        )
    return (
        "**No signal deserves to choose checkpoints; the last stays the default.** Those picked by a rule fitted on "
        f"other runs differ from the last by {said} (points of the few): no gain that both judges confirm."
    )


def _picture(found: dict[str, Estimate | None], pictures: Path) -> list[Picture]:
    rows = [(NAMES[name], *one) for name, one in found.items() if one is not None and one.low == one.low]
    if len(rows) < 2:
        return []
    caption = (
        "How well signals rank a run's checkpoints by the accuracy of the few (linear probe): means over runs and 95 % "
        "intervals."
    )
    return [medians_picture(pictures / "signals.png", {"Spearman's rank correlation": rows}, caption)]


# --- what regions know of classes -------------------------------------------------------------------------------------

# (key of line["classes"], what it is called)
_KNOWLEDGE = (
    ("region_size_anchors", "size of an image's region (GH's anchors), rank correlation with the size of its class"),
    ("region_size_k_means", "the same with k-means regions of the features"),
    ("density", "local density around an image, rank correlation with the size of its class"),
    ("class_density", "mean density of a class, rank correlation with its size (over the classes)"),
    ("lift", "images of the few in the sparsest tenth, times their share of all images"),
    ("skew_anchors", "skew (Gini) of GH's regions"),
    ("skew_k_means", "skew (Gini) of k-means regions"),
    ("class_skew", "skew (Gini) of the classes themselves"),
)


def _knowledge_section(lines: Sequence[Line]) -> list[Block]:
    """Each recipe and length by itself: another one of the same seed is no control."""
    blocks: list[Block] = [Heading(1, "What regions know of classes")]
    ended = [line for line in lines if line.get("classes")]
    lengths = sorted({(line["recipe"], line["epochs"]) for line in ended})
    if not ended:
        return [*blocks, Paragraph("No finished run was measured yet.")]
    for length in lengths:
        mine = [line for line in ended if (line["recipe"], line["epochs"]) == length]
        blocks += [Heading(2, _length(mine[0]))] if len(lengths) > 1 else []
        blocks += _knowledge(mine)
    return blocks


def _knowledge(ended: Sequence[Line]) -> list[Block]:
    """Of the last checkpoints of runs of one recipe and length."""
    # the control is of the arm base, so GH and learning rates are no part of the difference
    tailed, balanced, harmonized = ([line for line in ended if line["arm"] == arm] for arm in ("base", BALANCED, "gh"))
    rows, knowing = [], []
    for key, name in _KNOWLEDGE:
        long_tailed = over_runs(_values(tailed, key), f"long-tailed/{key}")
        control = over_runs(_values(balanced, key), f"balanced/{key}")
        difference = _difference(tailed, balanced, key)
        with_gh = over_runs(_values(harmonized, key), f"gh/{key}")
        rows.append([name, _spell(long_tailed), _spell(control), _spell(difference), _spell(with_gh)])
        if key != "class_skew" and difference is not None and difference.low > 0:
            knowing.append(name)
    return [
        Paragraph(
            f"The last checkpoints of {count(len(tailed), 'long-tailed run')} without GH and, as a control, of "
            f"{count(len(balanced), 'balanced one')}, whose classes are given the sizes that they have in the "
            "long-tailed set of the same seed: what shows there too is how hard or how spread the classes are, not "
            "how common. A correlation of 0 and a share of 1 time are no knowledge. Means over runs, 95 % intervals; "
            "the difference is paired by seed. Skews tell one set from another where long-tailed and balanced runs "
            f"differ. The last column is of {count(len(harmonized), 'long-tailed run')} with GH."
        ),
        Paragraph(_knowledge_verdict(knowing, tailed, balanced)),
        Rows(["", "long-tailed", "balanced", "difference", "long-tailed, GH"], rows),
    ]


def _values(lines: Sequence[Line], key: str) -> list[float]:
    found = [_value(line["classes"], key) for line in lines]
    return [value for value in found if value is not None]


def _value(classes: dict[str, Any], key: str) -> float | None:
    if key == "lift":
        return float(classes["few_in_sparsest"] / classes["few_in_all"]) if classes["few_in_all"] else None
    value = classes[key]
    value = value["value"] if isinstance(value, dict) else value
    return None if value is None else float(value)


def _difference(tailed: Sequence[Line], balanced: Sequence[Line], key: str) -> Estimate | None:
    """Long-tailed less balanced, over the seeds that have both: Student's t."""
    by_seed: list[dict[int, float]] = []
    for lines in (tailed, balanced):
        seeds = sorted({line["seed"] for line in lines})
        found = {seed: _values([line for line in lines if line["seed"] == seed], key) for seed in seeds}
        by_seed.append({seed: fmean(values) for seed, values in found.items() if values})
    difference = paired_difference(by_seed[0], by_seed[1])
    if difference is None:
        return None
    margin = float("nan") if difference.margin is None else difference.margin
    return Estimate(difference.mean, difference.mean - margin, difference.mean + margin)


def _knowledge_verdict(knowing: Sequence[str], tailed: Sequence[Line], balanced: Sequence[Line]) -> str:
    pairs = len({line["seed"] for line in tailed} & {line["seed"] for line in balanced})
    if pairs < 2:
        return f"**No verdict yet:** {count(pairs, 'seed')} with both a long-tailed and a balanced run; it takes two."
    if not knowing:
        return "**Nothing here tells common classes from rare ones beyond what the balanced control shows too.**"
    return (
        f"**Beyond what the balanced control shows, over {count(pairs, 'seed')}, these tell common classes from rare "
        f"ones:** {listing(list(knowing))}."
    )


def _spell(estimate: Estimate | None) -> str:
    if estimate is None:
        return "-"
    value, low, high = estimate
    return f"{value:+.2f}" + ("" if low != low else f" [{low:+.2f}, {high:+.2f}]")
