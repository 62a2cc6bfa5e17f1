"""Rows of a table for anything that has a number for every arm and seed: arms, and their paired differences."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import mean, stdev

from evensphere.report.wording import listing
from evensphere.reproduce.page import Rows
from evensphere.reproduce.results import Difference, Score, by_seed, paired_difference

Column = tuple[str, str]  # metric and column of a Score

PAIRED = (
    "Means ± standard deviation over seeds. Differences are paired by seed, over the pairs that both arms have, with "
    "95 % intervals (Student's t); below each, the smallest true difference that so many pairs would find four times "
    "in five."
)


def seeds_of(scores: Sequence[Score]) -> str:
    """ "Recipe digits-lt on a CPU; seeds 3-5." It says if an arm lacks some, and if they are fewer than three."""
    of_arm = {arm: {score.seed for score in scores if score.arm == arm} for arm in {score.arm for score in scores}}
    seeds = set().union(*of_arm.values())
    recipes, devices = (sorted({getattr(score, field) for score in scores}) for field in ("recipe", "device"))
    partly = "" if all(own == seeds for own in of_arm.values()) else "; not every arm has all of them"
    caution = "" if len(seeds) >= 3 else " Fewer than three seeds: no claim can rest on it."
    said = f"{'seed' if len(seeds) == 1 else 'seeds'} {ranges(seeds)}{partly}"
    return f"Recipe {listing(recipes)} on {listing(devices)}; {said}.{caution}"


def ranges(numbers: Collection[int]) -> str:
    """Whole numbers in words: "0-2, 5"."""
    starts = [number for number in sorted(numbers) if number - 1 not in numbers]
    ends = [number for number in sorted(numbers) if number + 1 not in numbers]
    return ", ".join(f"{one}-{other}" if one < other else f"{one}" for one, other in zip(starts, ends, strict=True))


def arm_rows(
    scores: Sequence[Score], titles: Mapping[str, str], columns: Mapping[str, Column], digits: int = 2
) -> Rows:
    """A row for each arm that has a number. titles: of the arms, in reading order. columns: what they are called."""
    rows = []
    for arm, title in titles.items():
        values = [_by_seed(scores, arm, column) for column in columns.values()]
        seeds = set().union(*values)
        if seeds:
            cells = [spread(list(found.values()), digits) for found in values]
            rows.append([title, *cells, f"{len(seeds)} ({ranges(seeds)})"])
    return Rows(["arm", *columns, "seeds"], rows)


def difference_rows(
    scores: Sequence[Score],
    contrasts: Sequence[tuple[str, str]],
    titles: Mapping[str, str],
    columns: Mapping[str, Column],
    digits: int = 2,
    unit: str = "",
) -> Rows:
    """Two rows for each pair of arms with a seed in common: the differences, and what they could have been."""
    rows = []
    for first, second in contrasts:
        found = [
            paired_difference(_by_seed(scores, first, column), _by_seed(scores, second, column))
            for column in columns.values()
        ]
        if any(found):
            title = f"{titles[first]}, against {titles[second]}"
            pairs = max(difference.seeds for difference in found if difference is not None)
            rows.append([title, *(spell(difference, digits) for difference in found), str(pairs)])
            rows.append(["smallest detectable", *(spell_detectable(difference, digits) for difference in found), ""])
    return Rows([f"difference{unit and f', in {unit}'}", *columns, "pairs"], rows)


def _by_seed(scores: Sequence[Score], arm: str, column: Column) -> dict[int, float]:
    metric, name = column
    return by_seed([score for score in scores if score.metric == metric], arm, name)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """ "52.10 ± 0.40", without a deviation for one value, "-" without any."""
    if not values:
        return "-"
    return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")


def spell(difference: Difference | None, digits: int = 2) -> str:
    """ "+1.20 [+0.40, +2.00]", without an interval where there is none, "-" without a difference."""
    if difference is None:
        return "-"
    if difference.margin is None:
        return f"{difference.mean:+.{digits}f}"
    return spell_range(
        difference.mean, difference.mean - difference.margin, difference.mean + difference.margin, digits
    )


def spell_range(value: float, low: float, high: float, digits: int = 2) -> str:
    return f"{value:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def spell_detectable(difference: Difference | None, digits: int = 2) -> str:
    return "-" if difference is None or difference.detectable is None else f"{difference.detectable:.{digits}f}"
