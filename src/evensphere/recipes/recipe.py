"""Recipes: everything that decides a run, as one value that can be changed, written down and read back.

A recipe is made by a function (`digits_lt(arm="gh")`), changed by settings ("method.temperature=0.2"), has its open
choices ("auto") filled in from the data, and is written to RUN/recipe.json, from which the run can be rebuilt.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_type_hints

import torch

from evensphere.data import SOURCES
from evensphere.data.kinds import OWN, kind_of
from evensphere.data.source import Source, UnreadableImage
from evensphere.data.storage import STORAGES
from evensphere.data.stream import Stream
from evensphere.engine.checkpoint import KEPT, Heritage
from evensphere.errors import InputError, unknown_name
from evensphere.gh.population import MOMENTUM, STREAMING_MOMENTUM
from evensphere.metrics import METRICS
from evensphere.ops.draw import permutation
from evensphere.ops.schedule import Duration
from evensphere.recipes import ARMS, RECIPES, STAGES
from evensphere.recipes.part import KINDS, Part, check, fits, import_path, options_of, parse_value, spell
from evensphere.recipes.trust import check_trust
from evensphere.values import check_whole, spelled

# the harmonizer's options that change nothing before its warm-up ends
_AFTER_WARM_UP = (
    *("weight", "ramp", "update_every"),
    *("prediction_temperature", "sinkhorn_temperature", "max_iterations", "tolerance"),
)

# its options that decide what its population remembers of the warm-up; a branch that changes them starts from a census
_REMEMBERED = ("anchors", "prior", "population", "memory", "seed")
# what else it has by then that these options decide; 0 by default
_BESIDE_THE_MEMORY = ("queue", "floor")

# fields that most runs leave empty; recipe.json then says nothing of them
_SELDOM = ("stages", "images", "teachers", "compile", "init")

# from, to: of fields that are whole numbers
_RANGES = {
    "epochs": (1, 10**7),
    "batch_size": (2, 10**9),
    "micro_batches": (1, 10**9),
    "seed": (0, 2**63 - 1),
    "workers": (0, 1024),
    "keep_checkpoints": (1, 10**6),
}
_OPEN = ("epochs", "batch_size")  # those that "auto" leaves to the data

PRECISIONS = ("auto", "32-true", "bf16-mixed", "64-true")

NEAR_DUPLICATES = ("auto", "once", "each")


class Size(NamedTuple):
    """How long a run is, and how many images there are in a step, all processes together."""

    epochs: int
    batch_size: int


@dataclass(frozen=True)
class Recipe:
    """All choices of a run. "auto" is filled in from the data by `with_sizes` and `with_precision`.

    epochs, batch_size (over all processes): at least 1 and 2.
    micro_batches: in how many parts a batch passes through the encoder, to save memory; at least 1, and parts of at
        least 2 images (see engine/micro_batches.py).
    precision: one of PRECISIONS, in Lightning Fabric's words. workers: processes that decode files.
    storage: where the images are while training, one of STORAGES (see data/storage.py).
    compile: whether torch compiles the encoder (see engine/compilation.py).
    evaluate_every, checkpoint_every: durations. snapshot_every: how often a checkpoint is kept for good.
    keep_checkpoints: how many of the last checkpoints are kept beside those and the best one, at least 1.
    metrics: of the finished encoder. monitor: quick ones on validation images, while training.
    stages: what makes a run out of several (see STAGES); None for a run in one piece.
    images: a list of the images to pretrain on: a file with a location in each line, or one like RUN/images.json. None
        takes all. Validation and evaluation see the whole data set either way. A run that was begun keeps its images.
    init: weights that the encoder begins with instead of random ones: a file or a Hugging Face folder (see
        engine/weights.py). A run that was begun keeps what it began with.
    near_duplicates: what a burst (a group of near-duplicates) counts in population statistics: "once", or "each" of its
        images for itself (see recipes/bursts.py).
    teachers: finished runs that the method learns from, relative to this run's own folder; for the stages of a run.
    resolved: what followed from the data when the run began; not a choice. Its "because" has a reason for each setting
        that was left open.
    """

    name: str
    summary: str
    data: Part
    views: Part
    backbone: Part
    method: Part
    harmonizer: Part
    optimizer: Part
    schedule: Part
    epochs: int | Literal["auto"]
    batch_size: int | Literal["auto"]
    micro_batches: int = 1
    seed: int = 0
    precision: str = "auto"
    workers: int | None = None
    storage: str = "auto"
    compile: bool = False
    evaluate_every: str = "10 epochs"
    checkpoint_every: str = "5 epochs"
    snapshot_every: str | None = None
    keep_checkpoints: int = KEPT
    metrics: tuple[str, ...] = ("knn", "probe")
    monitor: tuple[str, ...] = ("knn",)
    stages: Part | None = None
    images: str | None = None
    init: str | None = None
    near_duplicates: str = "auto"
    teachers: tuple[str, ...] = ()
    resolved: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not (value == "auto" and name in _OPEN):
                check_whole(name, value, least, most)
        for name, hint in _OTHER_FIELDS.items():
            if not fits(getattr(self, name), hint):
                raise InputError(f"{name} = {spelled(getattr(self, name))} was given; it takes {spell(hint)}.")
        for name in ("evaluate_every", "checkpoint_every", "snapshot_every"):
            if (duration := getattr(self, name)) is not None:
                Duration.parse(duration)
        if self.batch_size != "auto" and self.micro_batches > max(1, self.batch_size // 2):
            raise InputError(
                f"micro_batches = {self.micro_batches} was given for batches of {self.batch_size}; each must have at "
                f"least 2 images, so give at most {self.batch_size // 2}."
            )
        if self.compile and self.micro_batches > 1:
            raise InputError("compile=true and micro_batches were given; one excludes the other, so leave one out.")
        if self.precision not in PRECISIONS:
            raise unknown_name("precision", self.precision, PRECISIONS)
        if self.near_duplicates not in NEAR_DUPLICATES:
            raise unknown_name("choice of near_duplicates", self.near_duplicates, NEAR_DUPLICATES)
        if self.storage not in STORAGES:
            raise unknown_name("storage", self.storage, STORAGES)
        for metric in (*self.metrics, *self.monitor):
            if metric not in METRICS:
                raise unknown_name("metric", metric, METRICS)
        for kind in KINDS:
            if (part := getattr(self, kind)) is not None:
                check(kind, without_auto(part))

    @property
    def size(self) -> Size:
        """What `with_sizes` left or made of both."""
        assert self.epochs != "auto", "its length is still open"
        assert self.batch_size != "auto", "its batch is still open"
        return Size(self.epochs, self.batch_size)

    @property
    def arm(self) -> str:
        """Which of the three arms of a fair comparison this is (see ARMS)."""
        if self.harmonizer.name != "none":
            return "gh"
        return "two-stage" if self.schedule.name == "two-stage" else "base"

    @property
    def import_paths(self) -> list[str]:
        """Code of the user's own that parts of this recipe name."""
        parts = {kind: part for kind in KINDS if (part := getattr(self, kind)) is not None}
        return [path for kind, part in parts.items() if (path := import_path(kind, part)) is not None]

    @property
    def found_out(self) -> dict[str, Any]:
        """What `resolved` says of the images themselves, and of where they could not be kept: it holds for other runs
        on the same ones too."""
        names = ("channels", "bits", "adapted", "storage_asked")
        return {name: self.resolved[name] for name in names if name in self.resolved}

    def set(self, settings: Sequence[str]) -> Recipe:
        """A copy with settings of the form 'epochs=3', 'method=simclr' or 'method.temperature=0.2' applied in order."""
        recipe = self
        for setting in settings:
            path, equals, text = setting.partition("=")
            if not equals:
                raise InputError(f"--set {setting} was given; write --set NAME=VALUE, such as --set epochs=3.")
            recipe = _set_one(recipe, path.strip(), parse_value(text.strip()))
        return recipe

    def resuming(self, begun: Recipe) -> Recipe:
        """The recipe to go on with a run with: what it was begun with, on data that may have moved.

        Raises InputError where this recipe says something else than that one; what it leaves open ("auto") was decided.
        """
        for name, theirs, mine in replace(self, init=begun.init, storage=self._storage_of(begun))._differences(begun):
            raise InputError(
                f"This run was begun with {name}={theirs}, and {mine} was given now; "
                "resume it with the settings it was begun with, or choose another --out."
            )
        return replace(begun, data=self._data_beside(begun), workers=self.workers)

    def branching_from(self, begun: Recipe) -> Recipe:
        """The recipe to branch off another run with: this one, with what that one left open decided alike.

        Raises InputError where the two would not have been the same run up to the end of that run's warm-up. They may
        differ in whether there is a harmonizer, in what it does only afterwards, and in what it remembers. Whether a
        list of images is that of the other run is seen only once it is read.
        """
        if begun.harmonizer.name == "none":
            raise InputError(f"A run of the arm {begun.arm} has no warm-up to branch off; give one of the arm gh.")
        if self.images is not None and begun.images is None:
            raise InputError(
                f"images={self.images} was given, and the run to branch off was begun with all images; leave it out, "
                "or branch off a run on the same list."
            )
        options = (*_AFTER_WARM_UP, *_REMEMBERED, *_BESIDE_THE_MEMORY, "momentum")
        later = ["arm"] + [f"harmonizer.options.{name}" for name in options]
        for name, theirs, mine in replace(self, storage=self._storage_of(begun))._differences(begun):
            if name not in later and not (self.harmonizer.name == "none" and name.startswith("harmonizer")):
                raise InputError(
                    f"The run to branch off was begun with {name}={theirs}, and {mine} was given now; "
                    "up to the end of the warm-up the two must be the same."
                )
        return replace(
            begun,
            harmonizer=self.harmonizer,
            data=self._data_beside(begun),
            images=self.images or begun.images,
            workers=self.workers,
            resolved=begun.found_out,
        )

    def heritage(self, begun: Recipe) -> Heritage:
        """What becomes of the other run's harmonizer where this run branches off it."""
        if self.harmonizer.name == "none":
            return "none"
        mine, theirs = self.harmonizer.options, begun.harmonizer.options
        same = all(mine.get(name) == theirs.get(name) for name in _REMEMBERED)
        streams = begun.resolved.get("population") == "streaming"
        if not same or _warm_up_momentum(mine, streams) != _warm_up_momentum(theirs, streams):
            return "fresh"
        if mine.get("queue", 0) != theirs.get("queue", 0):
            return "population"
        return "kept" if mine.get("floor", 0) == theirs.get("floor", 0) else "statistics"

    def _storage_of(self, begun: Recipe) -> str:
        """Where to keep the images: where that run does, if it was told the same and could not have it."""
        return begun.storage if self.storage == begun.resolved.get("storage_asked") else self.storage

    def _data_beside(self, begun: Recipe) -> Part:
        """This recipe's data. Files that could be fetched for that run still can, unless this recipe says otherwise."""
        could = begun.data.options.get("download")
        return self.data if could is None or "download" in self.data.options else self.data.replace(download=could)

    def _differences(self, begun: Recipe) -> list[tuple[str, Any, Any]]:
        """(setting, there, here) wherever the recipes say different things that matter to the bits of a run."""
        mine, theirs = _flat(self.to_json()), _flat(begun.to_json())
        # where the images are, and whether those that are not here may be fetched, does not change what they are
        free = ("resolved", "summary", "workers", "data.options.path", "data.options.download", "images", "teachers")
        adapted = [name for name in begun.resolved.get("adapted", ()) if name not in mine]
        return [
            (name, theirs.get(name), mine.get(name))
            for name in sorted((mine | theirs).keys() - adapted)
            if mine.get(name) != theirs.get(name) and mine.get(name) != "auto" and not name.startswith(free)
        ]

    def to_json(self) -> dict[str, Any]:
        content = {"name": self.name, "arm": self.arm, **asdict(self)}
        for name in _SELDOM:
            if not content[name]:
                del content[name]
        read_back: dict[str, Any] = json.loads(json.dumps(content))  # with lists for tuples
        return read_back

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Recipe:
        """The recipe in a RUN/recipe.json, whoever wrote it. Raises InputError for one that is incomplete or damaged,
        and for one that names code that nobody has said to trust (see recipes/trust.py)."""
        known = {f.name for f in fields(cls)}
        try:
            given = {name: value for name, value in content.items() if name in known}
            for kind in KINDS:
                if kind in content or kind not in _SELDOM:
                    given[kind] = _optional_part(kind, content[kind])
            given.setdefault("near_duplicates", "each")  # before there was a choice
            given.setdefault("storage", "files")  # before there was a choice
            given |= {name: tuple(given[name]) for name in ("metrics", "monitor", "teachers") if name in given}
            return cls(**given)
        except (KeyError, TypeError) as error:
            raise InputError(f"recipe.json is incomplete ({error}); start the run again.") from error


def _optional_part(kind: str, content: Any) -> Part | None:
    """A run need not have stages."""
    return None if kind == "stages" and content is None else read_part(kind, content)


def read_part(kind: str, content: Any) -> Part:
    """A part as recipe.json has it, whoever wrote it. Raises KeyError and TypeError for one that is incomplete, and
    InputError for one that names code that nobody has said to trust."""
    part = Part(content["name"], **content["options"])
    if not isinstance(part.name, str):
        raise TypeError(f"{kind} has no name")
    if (path := import_path(kind, part)) is not None:
        check_trust(kind, path)
    return part


_OTHER_FIELDS = {name: hint for name, hint in get_type_hints(Recipe).items() if name not in (*KINDS, *_RANGES)}


def get_recipe(name: str, arm: str = "gh", **options: Any) -> Recipe:
    """A recipe by name. Raises InputError for an unknown name or arm."""
    if name not in RECIPES:
        raise unknown_name("recipe", name, RECIPES)
    if arm not in ARMS:
        raise unknown_name("arm", arm, ARMS)
    module, _, function = RECIPES[name][0].partition(":")
    recipe: Recipe = getattr(import_module(module), function)(arm, **options)
    return recipe


def with_data(recipe: Recipe, *data: str) -> Recipe:
    """The recipe on other data: the name of a data set, or a path, or several paths that are one collection.

    A recipe for anybody's own images takes any kind of collection (see `kind_of`); one for a named data set takes the
    path of that.
    """
    if not data:
        return recipe
    given = collection(*data)
    if given.options and (recipe.data.name not in OWN or recipe.data.name == given.name):
        return replace(recipe, data=recipe.data.replace(**given.options))
    return replace(recipe, data=given)


def collection(*data: str) -> Part:
    """What `data` is: the name of a data set, or a path of any kind, or several of one kind that are one collection."""
    if len(data) == 1 and data[0] in SOURCES and not Path(data[0]).exists():
        return Part(data[0])
    kinds = {kind_of(path): path for path in data}
    if len(kinds) > 1:
        found = " and ".join(f"{path} (of kind {kind})" for kind, path in kinds.items())
        raise InputError(f"{found} were given as one collection; give paths of one kind.")
    return Part(*kinds, path=data[0] if len(data) == 1 else list(data))


def arm_parts(
    arm: str, harmonizer: Part, learning_rate: float | str, warm_up: float, middle: float | str
) -> tuple[Part, Part]:
    """(harmonizer, schedule) of an arm. GH comes with a learning rate of its own, so the comparison has three arms."""
    plain = Part("plain", learning_rate=learning_rate, warm_up=warm_up)
    change = harmonizer.options["warm_up"]
    two_stage = Part("two-stage", learning_rate=learning_rate, middle=middle, warm_up=warm_up, stage_change=change)
    none = Part("none")
    return {"gh": (harmonizer, two_stage), "base": (none, plain), "two-stage": (none, two_stage)}[arm]


def _warm_up_momentum(harmonizer: dict[str, Any], streams: bool) -> Any:
    """What its options make of the momentum before it acts. streams: whether the images do."""
    momentum = harmonizer.get("momentum")
    if momentum is None:
        momentum = STREAMING_MOMENTUM if streams or harmonizer.get("population") == "streaming" else MOMENTUM
    return momentum[0] if isinstance(momentum, list | tuple) else momentum


# --- settings ---------------------------------------------------------------------------------------------------------

_FIXED = frozenset({"name", "summary", "resolved", "teachers"})


def _set_one(recipe: Recipe, path: str, value: Any) -> Recipe:
    head, dot, option = path.partition(".")
    settable = [f.name for f in fields(Recipe) if f.name not in _FIXED]
    if head not in settable:
        raise unknown_name("setting", head, settable)
    changed: dict[str, Any]
    if path == "method" and isinstance(value, str) and value in STAGES:
        raise InputError(f"{value} is no method but stages on top of any; write --set stages={value}.")
    if head in KINDS:
        old = getattr(recipe, head)
        changed = {head: _set_part(old, path, option, value) if dot else _named(head, value, old)}
    elif dot:
        raise InputError(f"--set {path} was given, but {head} has no options; write --set {head}=VALUE.")
    else:
        hint = get_type_hints(Recipe)[head]
        if hint == tuple[str, ...]:  # --set monitor=knn,probe
            value = tuple(filter(None, str(value).split(",")))
        if hint is bool and not isinstance(value, bool):
            raise InputError(f"{head} = {value!r} was given; it takes true or false.")
        changed = {head: str(value) if hint is str or (hint == str | None and value is not None) else value}
    return replace(recipe, **changed)


def _set_part(part: Part | None, path: str, option: str, value: Any) -> Part:
    if part is None:
        raise InputError(f"--set {path} was given, but the run has no stages; write --set stages=NAME before it.")
    return part.replace(**{option: value})


def _named(kind: str, name: Any, old: Part | None) -> Part | None:
    """The part of a name, which leaves to the data what the one in its place left to it and it has, too. A run need not
    have stages."""
    if kind == "stages" and name in (None, "none"):
        return None
    left_open = {} if old is None else {option: "auto" for option, value in old.options.items() if value == "auto"}
    if kind == "schedule" and "learning_rate" in left_open:
        left_open["middle"] = "auto"  # which goes with the rate
    elif kind == "schedule":
        left_open.pop("middle", None)
    known = options_of(kind, str(name)) if left_open else {}
    return Part(str(name), **{option: value for option, value in left_open.items() if option in known})


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"method.options.temperature": 0.2, ...}"""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat


def without_auto(part: Part) -> Part:
    """ "auto" fits every option until the data is known."""
    return Part(part.name, **{name: value for name, value in part.options.items() if value != "auto"})


# --- what "auto" becomes ----------------------------------------------------------------------------------------------

# images seen in a run, each as often as there are epochs
_SEEN, _FEWEST_EPOCHS, _MOST_EPOCHS = 2_000_000, 100, 1000
_LARGEST_VIEW = 224  # pixels
# learning rates for batches of 512: the paper's, SimCLR's and DINO's
_PEAK_FOR_512 = {"sgd": 0.5, "lars": 0.6, "adamw": 1e-3}


def because(recipe: Recipe, setting: str, reason: str) -> Recipe:
    """The recipe with the reason for a choice that was made for it, for recipe.json and `train --explain`."""
    reasons = recipe.resolved.get("because", {}) | {setting: reason}
    return replace(recipe, resolved=recipe.resolved | {"because": reasons})


def with_sizes(recipe: Recipe, source: Source) -> Recipe:
    """Fill in what follows from the data: length, view size, batch size, learning rate, stem.

    Length: see `with_length`. View size: the images' own if they all have one, else the median short side in steps of
    32, at most 224.
    Batch: 1/16 of the images, a power of two between 16 and 512 (256 for views above 64 pixels). Learning rate: in
    proportion to the batch, for 512 the paper's 0.5 (0.6 with LARS, 0.001 with AdamW); the two-stage rate's middle is
    0.6 of it, as in the paper. Stem: 'cifar' up to 64 pixels.
    """
    recipe = with_view_size(with_length(recipe, len(source)), source)
    return _with_stem(_with_learning_rate(_with_batch_size(recipe, source)))


def with_length(recipe: Recipe, num_images: int) -> Recipe:
    """Epochs, where they are left open: so many that each run sees about two million images, but 100 to 1,000.

    A small collection needs more epochs than a large one (docs/choosing.md has what was measured).
    """
    if recipe.epochs != "auto":
        return recipe
    epochs = max(_FEWEST_EPOCHS, min(_MOST_EPOCHS, 10 * round(_SEEN / num_images / 10)))
    bounds = f"{_FEWEST_EPOCHS} to {_MOST_EPOCHS:,} epochs"
    reason = f"{num_images:,} images are to be seen about {_SEEN:,} times in all, in {bounds}"
    return because(replace(recipe, epochs=epochs), "epochs", reason)


def _with_batch_size(recipe: Recipe, source: Source) -> Recipe:
    if recipe.batch_size != "auto":
        return recipe
    size = recipe.views.options.get("size")
    largest = 512 if size is None or size <= 64 else 256
    sixteenth = 2 ** (max(len(source) // 16, 1).bit_length() - 1)
    reason = f"1/16 of {len(source):,} images, as a power of two from 16 to {largest}"
    return because(replace(recipe, batch_size=max(16, min(largest, sixteenth))), "batch_size", reason)


def _with_learning_rate(recipe: Recipe) -> Recipe:
    if recipe.schedule.options.get("learning_rate") == "auto":
        peak = _PEAK_FOR_512.get(recipe.optimizer.name, _PEAK_FOR_512["sgd"])
        rate = round(peak * recipe.size.batch_size / 512, 6)
        recipe = replace(recipe, schedule=recipe.schedule.replace(learning_rate=rate))
        reason = f"{peak:g} (usual with {recipe.optimizer.name} for batches of 512), in proportion to the batch"
        recipe = because(recipe, "schedule.learning_rate", reason)
    given = recipe.schedule.options.get("learning_rate")
    if recipe.schedule.options.get("middle") == "auto" and isinstance(given, int | float):
        recipe = replace(recipe, schedule=recipe.schedule.replace(middle=round(0.6 * given, 6)))
        recipe = because(recipe, "schedule.middle", "0.6 of the learning rate, as in the paper")
    return recipe


def _with_stem(recipe: Recipe) -> Recipe:
    if recipe.backbone.options.get("stem") != "auto":
        return recipe
    size = recipe.views.options.get("size")
    small = size is not None and size <= 64
    reason = f"views of {size} pixels are {'at most' if small else 'more than'} 64"
    stem = "cifar" if small else "imagenet"
    return because(replace(recipe, backbone=recipe.backbone.replace(stem=stem)), "backbone.stem", reason)


def with_view_size(recipe: Recipe, source: Source) -> Recipe:
    """`with_sizes` for the views alone. Some of the images may be unreadable."""
    if recipe.views.options.get("size") != "auto":
        return recipe
    size, reason = _view_size(source)
    return because(replace(recipe, views=recipe.views.replace(size=size)), "views.size", reason)


def with_precision(recipe: Recipe) -> Recipe:
    """bf16 where the hardware multiplies it natively (2.4 times faster than float32 on such CPUs), else float32.

    A rule and not a measurement: the same machine must always choose the same, or the same seed would not give the
    same bits.
    """
    if recipe.precision != "auto":
        return recipe
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported()
    else:
        # torch has no public question for this; a version without the private one answers no
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        native = any(getattr(torch.cpu, probe, bool)() for probe in probes)
    reason = (
        f"this {'GPU' if torch.cuda.is_available() else 'CPU'} {'multiplies' if native else 'does not multiply'} bf16"
    )
    return because(replace(recipe, precision="bf16-mixed" if native else "32-true"), "precision", reason)


def _view_size(source: Source) -> tuple[int, str]:
    """The side of a view, and why."""
    if source.image_size is not None:
        size = min(*source.image_size, _LARGEST_VIEW)
        return size, f"the images' own short side, at most {_LARGEST_VIEW}"
    if isinstance(source, Stream):
        short_sides = [min(image.shape[1:]) for image in source.first_images(64)]
    else:
        short_sides = []
        for i in permutation(0, "view size", 0, len(source))[:64].tolist():
            with suppress(UnreadableImage):
                short_sides.append(min(source.read(i).shape[1:]))
    if not short_sides:
        return _LARGEST_VIEW, "no image could be read"  # which the look at all images will say
    median = sorted(short_sides)[len(short_sides) // 2]
    size = max(32, min(_LARGEST_VIEW, median // 32 * 32))
    return (
        size,
        f"the median short side of {len(short_sides)} images is {median}; in steps of 32, at most {_LARGEST_VIEW}",
    )
