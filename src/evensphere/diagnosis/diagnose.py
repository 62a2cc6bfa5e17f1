"""From a run folder, or from images that nobody has trained on yet, to findings. No label is asked for on the way."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console

from evensphere.data.augment import Views
from evensphere.data.source import Source, take
from evensphere.data.stream import Stream
from evensphere.diagnosis import course, prospects, regions, space, tail
from evensphere.diagnosis.eye import open_eye
from evensphere.diagnosis.finding import Diagnosis, Finding
from evensphere.diagnosis.look import SAMPLE, Look, Revisited, look, some_of
from evensphere.diagnosis.page import to_html
from evensphere.diagnosis.prospects import Plan
from evensphere.diagnosis.simple import Whitening
from evensphere.errors import InputError
from evensphere.gh.harmonizer import auto_num_anchors
from evensphere.recipes.images import splits_of
from evensphere.recipes.recipe import Recipe, get_recipe, with_data, with_sizes
from evensphere.recipes.storing import look_at
from evensphere.recipes.trust import trusting
from evensphere.report.page import write_file
from evensphere.report.wording import count
from evensphere.rundir import RunDir

_CHECKPOINTS = 6  # looked at, at most, spread over the run
_WIDTH = 128  # of embeddings, in a plan for images that nobody has trained on


def diagnose(
    path: Path | str,
    out: str | Path | None = None,
    backbone: str | None = None,
    weights: str | Path | None = None,
    images: int = SAMPLE,
    console: Console | None = None,
    trust: bool = False,
    data: Sequence[str] = (),
) -> Diagnosis:
    """Look at a run (RUN/diagnosis.json and .html are written), or at a collection of images before any training.

    path: a run folder, or images of any kind. out: a folder to write to; a run's own if not given, nowhere for images.
    backbone, weights: for images: a timm model's name and a safetensors file with its weights; or the
        encoder.safetensors of a run alone. Without them features are simple statistics of the pixels.
    images: how many are looked at, at most; at least 2. data: where a run's images lie now, if they have moved.
    trust: whether code of the user's own, which a run's recipe or its encoder's description names, may run.
    Raises InputError for what cannot be used.
    """
    console = console or Console(quiet=True)
    if images < 2:
        raise InputError(f"images = {images} was given; a diagnosis compares at least 2.")
    run = RunDir(path)
    is_run = run.recipe_file.is_file()
    if is_run and (backbone is not None or weights is not None):
        raise InputError(f"{path} is a run, which has a network of its own; leave out --backbone and --weights.")
    if data and not is_run:
        raise InputError(
            f"{path} is no run, so --data says nothing here; give the images themselves instead of {path}."
        )
    with trusting(trust):
        if is_run:
            diagnosis = diagnose_run(run, images, console, data)
        else:
            diagnosis = diagnose_images(str(path), backbone, weights, images, console)
    folder = Path(out) if out is not None else run.path if is_run else None
    if folder is not None:
        write_file(folder / "diagnosis.json", json.dumps(diagnosis.to_json(), indent=2) + "\n")
        write_file(folder / "diagnosis.html", to_html(diagnosis))
    return diagnosis


# --- a run ------------------------------------------------------------------------------------------------------------


def diagnose_run(
    run: RunDir, images: int = SAMPLE, console: Console | None = None, data: Sequence[str] = ()
) -> Diagnosis:
    """Everything that a run's logs and networks say. Writes nothing."""
    console = console or Console(quiet=True)
    recipe, events = with_data(Recipe.from_json(run.read_recipe()), *data), run.read_metrics()
    found: list[Finding | None] = [course.stopped(events), _length(run, recipe, events)]
    found.append(course.loss_course(events, recipe.resolved["steps_per_epoch"], recipe.method.name))
    if recipe.harmonizer.name != "none":
        found.append(course.sinkhorn(events, recipe.harmonizer.options))
    what = f"{recipe.method.name} on {count(recipe.resolved['num_images'], 'image')}, arm {recipe.arm}"
    if _is_streamed(recipe):
        found.append(_unseen("Its images come as a stream, which cannot be looked at twice."))
        return Diagnosis(run.path.name, what, recipe.resolved["num_images"], 0, _kept(found))
    revisited = Revisited(run, data, images)
    steps = _spread(revisited.steps)
    if not steps and not run.encoder_file.exists():
        found.append(_unseen("No checkpoint has been written yet."))
        return Diagnosis(run.path.name, what, revisited.count, 0, _kept(found))
    with console.status("Looking at the checkpoints") as status:
        looks = []
        for step in steps:
            status.update(f"Looking at step {step:,}")
            looks.append(revisited.at(step))
        if not steps:
            looks.append(revisited.at(None))
    found += findings_of_run(revisited, steps, looks)
    return Diagnosis(run.path.name, what, revisited.count, len(looks[-1].features), _kept(found))


def _length(run: RunDir, recipe: Recipe, events: list[dict[str, Any]]) -> Finding:
    total = recipe.resolved["total_steps"]
    logged = max((event["step"] + 1 for event in events if event["event"] == "step"), default=0)
    return course.run_length(total, total if run.encoder_file.exists() else logged, recipe.size.epochs)


def _is_streamed(recipe: Recipe) -> bool:
    return isinstance(splits_of(recipe).pretrain, Stream)


def _unseen(reason: str) -> Finding:
    return Finding(
        "unseen",
        "Could the images be looked at?",
        "info",
        f"{reason} Only what the run has logged is judged here.",
        {},
        "Findings on neighbours, regions and the tail need the images and a network.",
    )


def _spread(steps: list[int]) -> list[int]:
    """At most `_CHECKPOINTS`, evenly, the last always among them."""
    if len(steps) <= _CHECKPOINTS:
        return steps
    last = len(steps) - 1
    return [steps[round(i * last / (_CHECKPOINTS - 1))] for i in range(_CHECKPOINTS)]


def findings_of_run(revisited: Revisited, steps: list[int], looks: list[Look]) -> list[Finding | None]:
    """What the networks at these steps say of the sample. Networks that give no numbers end the looking."""
    recipe, last = revisited.recipe, looks[-1]
    if (broken := _broken(last)) is not None:
        return [broken]
    per_epoch = recipe.resolved["steps_per_epoch"]
    epochs = [step / per_epoch for step in steps] or [float(recipe.size.epochs)]
    sound = [(epoch, one) for epoch, one in zip(epochs, looks, strict=True) if _broken(one) is None]
    trained = (steps[-1] if steps else recipe.resolved["total_steps"]) >= course.ENOUGH_STEPS
    collapse = space.collapse([space.room(one, epoch) for epoch, one in sound], trained)
    if collapse.level == "alarm":  # whose neighbours and regions are accidents
        return [collapse]
    found: list[Finding | None] = [collapse]
    near = _near(last, found, revisited.sample)
    if near is not None and near.consistency is not None:
        tracks = [(epoch, one) for epoch, look in sound if (one := tail.consistency_of(look)) is not None]
        found.append(tail.trend_finding(tracks, near.tenths))
    division = _regions(revisited, last, steps)
    consistency = None if near is None else near.reliable
    found += [regions.sizes_finding(division), regions.skew_finding(division, consistency)]
    plan = _plan_of(recipe, consistency, division.agreement)
    return [*found, prospects.anchors_finding(plan), prospects.harmonization_finding(plan)]


def _near(look: Look, found: list[Finding | None], sample: Source, learnt: bool = True) -> tail.Neighbourhoods | None:
    """The sample's neighbourhoods, with what they say appended; None for too few images."""
    if len(look.features) < tail.LEAST_IMAGES:
        found.append(_few(len(look.features)))
        return None
    near = tail.neighbourhoods(look)
    locations = [sample.location(i) for i in look.index.tolist()]
    found += [tail.neighbourhood_finding(near, learnt), tail.density_finding(near, locations)]
    if learnt:
        found.append(tail.detail_finding(look, near))
    return near


def _few(images: int) -> Finding:
    return Finding(
        "few-images",
        "Are there enough images?",
        "warning",
        f"{count(images, 'image')} are too few to divide into tenths: nothing is said of the sparse ones.",
        {"images": images, "needed": tail.LEAST_IMAGES},
        "Ten images to a tenth are the least that a mean can be taken of.",
        "Give more images, or look at them all: at this number that is quicker than any statistic.",
    )


def _regions(revisited: Revisited, look: Look, steps: list[int]) -> regions.Regions:
    harmonizer, recipe = revisited.harmonizer, revisited.recipe
    if harmonizer is not None and look.embeddings is not None:
        begun = bool(steps) and steps[-1] >= (recipe.resolved["warm_up_steps"] or 0) > 0
        return regions.regions_of_run(look, harmonizer, revisited.count, begun)
    clusters = auto_num_anchors(revisited.count, recipe.resolved["embedding_dim"])
    return regions.regions_by_k_means(look.features, min(clusters, len(look.features)))


def _plan_of(recipe: Recipe, consistency: float | None, agreement: float | None) -> Plan:
    resolved, options = recipe.resolved, recipe.harmonizer.options
    total, warm_up = resolved["total_steps"], resolved["warm_up_steps"]
    epochs, batch_size = recipe.size
    return Plan(
        images=resolved["num_images"],
        batch_size=batch_size,
        epochs=epochs,
        total_steps=total,
        anchors=resolved["anchors"],
        weight=float(options.get("weight", 1.0)),
        width=resolved["embedding_dim"],
        gh_steps=0 if warm_up is None else total - warm_up,
        consistency=consistency,
        agreement=agreement,
    )


def _broken(look: Look) -> Finding | None:
    """The alarm of features that are no numbers."""
    bad = ~look.features.isfinite().all(1)
    if look.embeddings is not None:
        bad |= ~look.embeddings.flatten(1).isfinite().all(1)
    if not bad.any():
        return None
    return Finding(
        "finite",
        "Are the features numbers?",
        "alarm",
        f"The features of {int(bad.sum()):,} of {len(bad):,} images are NaN or infinite: the network has diverged.",
        {"images": len(bad), "not_finite": int(bad.sum())},
        "One weight that is no number is enough.",
        "Do not use this encoder. Train again with a lower learning rate, or with --set precision=32-true.",
    )


def _kept(found: list[Finding | None]) -> tuple[Finding, ...]:
    return tuple(finding for finding in found if finding is not None)


# --- images before any training ---------------------------------------------------------------------------------------


def diagnose_images(
    path: str,
    backbone: str | None = None,
    weights: str | Path | None = None,
    images: int = SAMPLE,
    console: Console | None = None,
) -> Diagnosis:
    """What can be said of a collection before any training on it. Writes nothing."""
    console = console or Console(quiet=True)
    device = Fabric(accelerator="auto", devices=1).device
    recipe = with_data(get_recipe("folder"), path)
    source = splits_of(recipe).pretrain
    if isinstance(source, Stream):
        source.refuse("`evensphere diagnose`")
    eye = open_eye(source, backbone, weights)
    sample, pixels = _sample(recipe, source, eye.views, images, console)
    with console.status(f"Looking at {len(sample):,} images"):
        seen = look(eye.network.to(device), None, pixels, eye.views, device)
    if len(seen.features) < 2:
        raise InputError(f"{source.name} has {len(seen.features)} readable image(s); a diagnosis compares at least 2.")
    found: list[Finding | None] = [eye.finding, _broken(seen) or _alike(seen)]
    if found[-1] is None:
        found += findings_of_images(recipe, source, sample, seen if eye.learnt else _whitened(seen), eye.learnt)
    return Diagnosis(path, f"images, {eye.what}", len(source), len(seen.features), _kept(found))


def _sample(recipe: Recipe, source: Source, views: Views, images: int, console: Console) -> tuple[Source, Source]:
    """Some of the readable images; and their pixels, decoded once."""
    chosen = replace(
        recipe, views=recipe.views.replace(size=views.size), storage="memory" if source.bits == 8 else "files"
    )
    quiet = Console(quiet=True)
    with console.status("Reading images"):
        _, found = look_at(chosen, take(source, some_of(len(source), images)), torch.device("cpu"), quiet)
    return found.source, found.pixels


def _whitened(seen: Look) -> Look:
    whitening = Whitening(seen.features)
    return seen._replace(features=whitening(seen.features), views=None if seen.views is None else whitening(seen.views))


def findings_of_images(
    recipe: Recipe, source: Source, sample: Source, seen: Look, learnt: bool
) -> list[Finding | None]:
    """What features say of the sample, and so of the source's images.

    learnt: whether the features come from a network; others say nothing of what a network will make of the images.
    """
    found: list[Finding | None] = []
    if learnt:
        found.append(space.collapse([space.room(seen, 0.0)]))
    near = _near(seen, found, sample, learnt)
    consistency = None if near is None else near.reliable
    plan = _plan_for(recipe, source, consistency if learnt else None)
    assert plan.anchors is not None
    division = regions.regions_by_k_means(seen.features, min(plan.anchors, len(seen.features)))
    found += [regions.sizes_finding(division), regions.skew_finding(division, consistency)]
    return [*found, prospects.length_finding(plan), prospects.harmonization_finding(plan)]


def _plan_for(recipe: Recipe, source: Source, consistency: float | None) -> Plan:
    """What `evensphere train folder` would do with these images."""
    epochs, batch_size = with_sizes(recipe, source).size
    full, rest = divmod(len(source), batch_size)
    steps = epochs * (full + (rest >= 2))
    anchors = auto_num_anchors(len(source), _WIDTH)
    return Plan(
        len(source),
        batch_size,
        epochs,
        steps,
        anchors,
        1.0,
        _WIDTH,
        steps // 2,
        consistency,
        agreement=None,
    )


def _alike(look: Look) -> Finding | None:
    """The alarm of images that are all the same to the network."""
    if float(look.features.std(0, correction=0).max()) > 1e-6:
        return None
    return Finding(
        "alike",
        "Do the images differ?",
        "alarm",
        f"All {len(look.features):,} images look the same: their features do not differ at all.",
        {"images": len(look.features)},
        "Empty frames and one picture saved many times look like this.",
        "Look at them (`evensphere data inspect PATH --out FOLDER` draws a contact sheet); training cannot learn "
        "from these.",
    )
