"""scikit-learn: a transformer that learns features from images without labels.

    model = make_pipeline(Encoder(epochs=100, random_state=0), LogisticRegression())
    model.fit(images, labels)

Behind `fit` is the `train` of everybody else: the same recipes, and the same bits for the same seed.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32
from lightning_fabric import Fabric
from rich.console import Console
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import nn

from evensphere.data.arrays import in_memory
from evensphere.data.augment import Views
from evensphere.data.encoded import FileSource, as_text
from evensphere.data.source import Source, Splits
from evensphere.disk import atomic_write, make_folder, temporary_folder
from evensphere.engine.checkpoint import load_encoder
from evensphere.engine.embed import embed
from evensphere.errors import InputError, TrainingInterrupted
from evensphere.recipes.network import build_encoder
from evensphere.recipes.part import Part, build
from evensphere.recipes.recipe import Recipe, collection, get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

Array = npt.NDArray[Any]


class Encoder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Features of images, by a network that `fit` trains on images without labels.

    recipe: a name (see `evensphere recipes`); that of a named data set lends its network and schedule.
    method, backbone, epochs, batch_size: None takes the recipe's.
    gh: with Geometric Harmonization, or the method alone.
    settings: all else, as on the command line: ("method.temperature=0.1", "harmonizer.anchors=50").
    random_state: a whole number is the run's seed, as in `train --set seed=`; None and generators draw one.
    run: a folder to keep the run in, for `evensphere diagnose`, `report` ...; it serves one fit. None keeps nothing.
    verbose: show what `evensphere train` shows.

    After `fit` there are encoder_ (the network, on the CPU), views_ (how it wants its images), recipe_ (what was chosen
    and found out) and skipped_ (images that could not be read, each with the reason).
    """

    encoder_: nn.Module
    views_: Views
    recipe_: Recipe
    skipped_: list[tuple[str, str]]

    def __init__(
        self,
        recipe: str = "folder",
        method: str | None = None,
        backbone: str | None = None,
        gh: bool = True,
        epochs: int | None = None,
        batch_size: int | None = None,
        settings: Sequence[str] = (),
        random_state: Any = None,
        run: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.recipe, self.method, self.backbone, self.gh = recipe, method, backbone, gh
        self.epochs, self.batch_size, self.settings = epochs, batch_size, settings
        self.random_state, self.run, self.verbose = random_state, run, verbose

    def fit(self, X: Any, y: object = None) -> Encoder:
        """Train on images. y is there for pipelines, and not looked at.

        X: a uint8 array N x H x W or N x H x W x C, image files, or one path of any kind that `evensphere train --data`
            takes. Files that cannot be read are left out.
        Raises InputError where X is none of these or holds no two images, and for a parameter that cannot be used.
        """
        recipe, given = self._chosen(), _understood(X)
        with self._folder() as folder:
            recipe = replace(recipe, data=_written_down(given, folder))
            try:
                run = RunDir(train(recipe, folder, console=Console(quiet=not self.verbose)))
            except TrainingInterrupted as stopped:
                if self.run is None and stopped.code == 130:  # Ctrl-C, and there is nothing to go on with
                    raise KeyboardInterrupt from None
                raise
            self.recipe_, self.skipped_ = Recipe.from_json(run.read_recipe()), run.read_skipped()
            self.encoder_ = build_encoder(self.recipe_, self.recipe_.resolved["channels"])
            load_encoder(run, self.encoder_)
        self.views_ = build("views", self.recipe_.views, seed=self.recipe_.seed)
        return self

    def transform(self, X: Any) -> Float32[np.ndarray, "n d"]:
        """The features of images, a row for each, in the order in which they are given: of a folder, that of their
        paths.

        Raises InputError for an image that cannot be read, and for images with another number of channels than those
        that the encoder was fitted on.
        """
        check_is_fitted(self)
        source = _source_of(_understood(X), self.recipe_)
        if source.channels != self.recipe_.resolved["channels"]:
            raise InputError(
                f"{source.name} has images of {source.channels} channel(s), and the encoder was fitted on "
                f"{self.recipe_.resolved['channels']}; give images like those."
            )
        device = Fabric(accelerator="auto", devices=1).device
        try:
            found = embed(source, self.encoder_.to(device), self.views_)
        finally:
            self.encoder_.to("cpu")  # where it can be pickled for any machine
        if len(found.index) < len(source):
            unread = sorted(set(range(len(source))) - set(found.index.tolist()))
            raise InputError(
                f"{len(unread)} of the {len(source)} images of {source.name} cannot be read, the first being "
                f"{source.location(unread[0])}; leave them out, so that there is a row for each image."
            )
        return found.features.numpy()

    @property
    def _n_features_out(self) -> int:
        """For scikit-learn's names of the features, encoder0, encoder1 ..."""
        return int(self.encoder_.num_features)  # type: ignore[arg-type]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = False, True, True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def _chosen(self) -> Recipe:
        """The recipe, but for its data."""
        seed = self.random_state
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
            seed = check_random_state(seed).randint(2**31 - 1)
        given = {name: getattr(self, name) for name in ("method", "backbone", "epochs", "batch_size")}
        settings = [f"{name}={value}" for name, value in given.items() if value is not None]
        more = [self.settings] if isinstance(self.settings, str) else self.settings
        recipe = get_recipe(self.recipe, arm="gh" if self.gh else "base")
        return recipe.set(["monitor=", f"seed={seed}", *settings, *more])  # no look at labels, should there be any

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """Where the run and what was given is written down."""
        if self.run is None:
            with temporary_folder() as folder:
                yield folder
            return
        if RunDir(self.run).recipe_file.exists():
            raise InputError(f"{self.run} already holds a run; give another folder, or run=None to keep nothing.")
        make_folder(Path(self.run))
        yield Path(self.run)


# --- what X is --------------------------------------------------------------------------------------------------------

Given = str | list[str] | Array


def _understood(X: Any) -> Given:
    """X as one path, as image files, or as an array. Raises InputError for anything else."""
    if isinstance(X, str | Path):
        return str(X)
    try:
        array = np.asarray(X)
    except ValueError:  # images of several sizes
        array = np.empty(0)
    if array.ndim == 1 and len(array) and all(isinstance(one, str | Path) for one in array.tolist()):
        return [str(one) for one in array.tolist()]
    if array.ndim == 2 and array.dtype != object:
        raise InputError(
            f"{array.shape[0]} x {array.shape[1]} features were given; an Encoder takes images: reshape the rows to "
            "N x height x width (x channels), as uint8 from 0 to 255."
        )
    if array.ndim not in (3, 4):
        raise InputError(
            f"X is {type(X).__name__} of shape {array.shape}; give a uint8 array N x height x width (x channels) of "
            "images of one size, a list of image files, or the path of a folder."
        )
    return array


def _written_down(given: Given, folder: Path) -> Part:
    """The data of a recipe: what was given, where a run can read it."""
    if isinstance(given, str):
        return collection(given)
    if isinstance(given, list):
        file = folder / "given.json"
        paths = sorted({as_text(os.path.abspath(os.path.expanduser(path))) for path in given})  # folds may repeat some
        atomic_write(file, json.dumps({"images": paths}))
        return Part("list", path=str(file))
    in_memory("X", given)  # which says what is wrong with it
    file = folder / "given.npy"
    buffer = io.BytesIO()
    np.save(buffer, given)
    atomic_write(file, buffer.getbuffer())
    return Part("array", path=str(file))


def _source_of(given: Given, recipe: Recipe) -> Source:
    """The images to transform, in their order."""
    how = {name: recipe.resolved[name] for name in ("channels", "bits") if name in recipe.resolved}
    if isinstance(given, str):
        splits: Splits = build("data", collection(given), **how)
        return splits.pretrain
    if isinstance(given, list):
        return FileSource("X", "", [os.path.expanduser(path) for path in given], **how)
    return in_memory("X", given)
