"""What can be said beforehand of a plan: the number of regions, the length, and whether GH is likely to help."""

from __future__ import annotations

import math
from typing import NamedTuple

from evensphere.diagnosis.course import ENOUGH_STEPS
from evensphere.diagnosis.finding import RELIABLE, Finding, Question
from evensphere.gh.harmonizer import auto_num_anchors
from evensphere.report.wording import PERCENT, count, listing

_HARMLESS = 0.3  # of the weights tried
_LEAST_AGREEMENT = 0.5  # of the two views of an image on their region
_IMAGES_PER_REGION = 50  # see harmonizer.auto_num_anchors


class Plan(NamedTuple):
    """What decides GH's prospects.

    anchors: K, None without GH. width: of the embeddings. gh_steps: steps that GH acts on.
    consistency, agreement: shares in [0, 1] of what two views of an image agree on (neighbours, region), None where
        that is not known.
    """

    images: int
    batch_size: int
    epochs: int
    total_steps: int
    anchors: int | None
    weight: float
    width: int
    gh_steps: int
    consistency: float | None
    agreement: float | None


def length_finding(plan: Plan) -> Finding:
    """Before training: how long the recipe's own number of epochs is on these images."""
    numbers = {"images": plan.images, "batch_size": plan.batch_size, "epochs": plan.epochs, "steps": plan.total_steps}
    evidence = (
        "Steps are what counts, not epochs: 84 steps on 2,640 photos left an encoder worse than an untrained one, and "
        "CIFAR-100-LT still gained after 2,000 (docs/log.md)."
    )
    asked = Question("plan-length", "How long should training be?", numbers, evidence)
    told = f"{plan.epochs} epochs of {count(plan.images, 'image')} are {count(plan.total_steps, 'step')}"
    if plan.total_steps < ENOUGH_STEPS:
        wanted = math.ceil(plan.epochs * ENOUGH_STEPS / max(1, plan.total_steps))
        return asked.answer("warning", f"{told}, which is too few.", f"Train with --set epochs={wanted} or more.")
    return asked.answer("ok", f"{told}, which is enough to begin with.")


def anchors_finding(plan: Plan) -> Finding | None:
    """Whether the number of regions suits the data; None without GH."""
    if plan.anchors is None:
        return None
    k, wanted = plan.anchors, auto_num_anchors(plan.images, plan.width)
    per_region, per_batch = plan.images / k, plan.batch_size / k
    numbers = {"anchors": k, "suggested": wanted, "images_per_region": per_region, "batch_images_per_region": per_batch}
    evidence = (
        f"A region with fewer than {_IMAGES_PER_REGION} images has a share that is mostly noise. Too few regions did "
        "harm where it was measured, and batches that hold less than one image of a region did not (docs/choosing.md)."
    )
    asked = Question("anchors", "Is the number of regions right?", numbers, evidence)
    told = f"{k} regions: {per_region:.0f} images to each, {per_batch:.1f} of a batch"
    if k > 2 * wanted:
        return asked.answer("warning", f"Many for this data ({told}).", f"--set harmonizer.anchors={wanted}.")
    if 4 * k < wanted:
        return asked.answer(
            "warning",
            f"Few for this data ({told}): different things share a region.",
            f"--set harmonizer.anchors={wanted}.",
        )
    return asked.answer("ok", f"They suit the data ({told}).")


def harmonization_finding(plan: Plan) -> Finding:
    """Whether GH is likely to help or to hurt here, from what its labels can know."""
    against = []
    if plan.total_steps < ENOUGH_STEPS:
        against.append(f"{count(plan.total_steps, 'step')} are too few to learn regions that mean anything")
    elif plan.anchors is not None and plan.gh_steps < ENOUGH_STEPS // 2:
        against.append(f"GH acts on {count(plan.gh_steps, 'step')} only")
    if plan.agreement is not None and plan.agreement < _LEAST_AGREEMENT:
        against.append(
            f"two views of an image stand in one region only {100 * plan.agreement:.0f}{PERCENT} of the time"
        )
    if plan.consistency is not None and plan.consistency < RELIABLE:
        against.append(f"two views of an image share only {100 * plan.consistency:.0f}{PERCENT} of their neighbours")
    numbers = {
        "steps": plan.total_steps,
        "gh_steps": plan.gh_steps,
        "weight": plan.weight,
        "agreement_percent": None if plan.agreement is None else 100 * plan.agreement,
        "consistency_percent": None if plan.consistency is None else 100 * plan.consistency,
    }
    evidence = (
        "On CIFAR-100-LT with a small network and 60 epochs GH at weight 1 changed the average by -0.65 points (-0.91 "
        "to -0.39) and that of the few by -0.92 (-1.55 to -0.29) against its control; weight 0.3 the average by -0.03 "
        "(-0.89 to +0.82). There two views of an image had the same label in 30 to 32 % of the cases when GH began. "
        "The paper reports gains after 1,000 epochs of ResNet-18 (docs/when-gh-hurts.md)."
    )
    asked = Question("harmonization", "Will GH help here?", numbers, evidence)
    compare = (
        "Only a comparison on labelled images tells: train --arm gh, --arm two-stage and --arm base, evaluate each, "
        "and report them side by side."
    )
    if against:
        return asked.answer(
            "warning" if plan.agreement is not None and plan.weight > _HARMLESS else "info",
            f"Unlikely: {listing(against)}, so its regions are not kinds of things.",
            f"Take --arm base, or --set harmonizer.weight=0.3, which did no harm. {compare}",
        )
    known = plan.agreement is not None or plan.consistency is not None
    return asked.answer(
        "info",
        "Nothing speaks against it here, which is not evidence that it helps."
        if known
        else "Nobody can say before a network has looked at the images.",
        compare,
    )
