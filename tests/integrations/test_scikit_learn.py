"""The Encoder is an estimator like scikit-learn's own, and a run like any other."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import parametrize_with_checks
from sklearn.utils.validation import check_is_fitted, validate_data

from evensphere import Encoder
from evensphere.errors import InputError
from evensphere.recipes.recipe import get_recipe
from evensphere.recipes.run import train
from evensphere.rundir import RunDir

DIGITS = load_digits()
IMAGES = np.rint(DIGITS.images * (255 / 16)).astype(np.uint8)[:60]
LABELS = DIGITS.target[:60]
TINY = ("backbone.width=4", "backbone.stages=1", "method.embedding_dim=8", "harmonizer.anchors=4")


def tiny(**parameters: Any) -> Encoder:
    usual: dict[str, Any] = {"recipe": "digits-lt", "epochs": 1, "batch_size": 16, "settings": TINY}
    return Encoder(**(usual | parameters))


@pytest.fixture(scope="module")
def fitted() -> Encoder:
    return tiny(random_state=0).fit(IMAGES)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "in" / f"{i:02d}.png" for i in range(len(IMAGES))]
    paths[0].parent.mkdir()
    for path, image in zip(paths, IMAGES, strict=True):
        Image.fromarray(image).save(path)
    return paths


def test_a_row_of_float32_for_each_image(fitted: Encoder) -> None:
    features = fitted.transform(IMAGES)
    assert features.shape == (60, 4)
    assert features.dtype == np.float32
    assert np.isfinite(features).all()
    assert fitted.get_feature_names_out().tolist() == ["encoder0", "encoder1", "encoder2", "encoder3"]
    order = np.random.default_rng(0).permutation(60)
    np.testing.assert_allclose(fitted.transform(IMAGES[order]), features[order], atol=1e-5)
    np.testing.assert_allclose(fitted.transform(IMAGES[7:8]), features[7:8], atol=1e-5)


def test_an_array_a_folder_and_files_are_the_same_images(fitted: Encoder, files: list[Path], tmp_path: Path) -> None:
    features = fitted.transform(IMAGES)
    backwards = files[::-1]
    for same in (IMAGES[..., None], torch.from_numpy(IMAGES), list(IMAGES), files[0].parent, [str(f) for f in files]):
        np.testing.assert_allclose(fitted.transform(same), features, atol=1e-6)
    np.testing.assert_allclose(fitted.transform(backwards), features[::-1], atol=1e-6)
    np.testing.assert_allclose(fitted.transform(np.array([files[3], files[3]])), features[[3, 3]], atol=1e-5)
    by_files, by_folder = (tiny(random_state=0).fit(given).transform(IMAGES) for given in (backwards, files[0].parent))
    np.testing.assert_array_equal(by_files, by_folder)
    assert not np.array_equal(tiny(random_state=1).fit(IMAGES).transform(IMAGES), features)


def test_it_is_the_run_of_the_command_line(fitted: Encoder, tmp_path: Path) -> None:
    np.save(tmp_path / "digits.npy", IMAGES)
    recipe = get_recipe("digits-lt").set(["data=array", f"data.path={tmp_path / 'digits.npy'}", "epochs=1", "monitor="])
    run = train(recipe.set(["batch_size=16", *TINY, "seed=0"]), tmp_path / "theirs")
    kept = tiny(random_state=0, run=tmp_path / "ours").fit(IMAGES)
    for folder in ("theirs", "ours"):
        assert RunDir(tmp_path / folder).encoder_file.read_bytes() == RunDir(run).encoder_file.read_bytes()
    np.testing.assert_array_equal(kept.transform(IMAGES), fitted.transform(IMAGES))
    with pytest.raises(InputError, match="already holds a run; give another folder"):
        tiny(run=tmp_path / "ours").fit(IMAGES)


def test_gh_or_not_is_a_parameter_like_any_other() -> None:
    with_gh, without = tiny(random_state=0).fit(IMAGES), tiny(random_state=0, gh=False, settings=TINY[:3]).fit(IMAGES)
    assert (with_gh.recipe_.arm, without.recipe_.arm) == ("gh", "base")
    copied = clone(with_gh)
    assert copied.get_params() == with_gh.get_params()
    assert not hasattr(copied, "encoder_")
    assert copied.set_params(method="vicreg", epochs=2)._chosen().method.name == "vicreg"


def test_in_pipelines_and_grid_searches(files: list[Path]) -> None:
    model = make_pipeline(tiny(random_state=0), LogisticRegression(max_iter=50))
    search = GridSearchCV(
        model, {"encoder__method": ["simclr", "vicreg"], "encoder__epochs": [1]}, cv=2, error_score="raise"
    )
    search.fit(IMAGES, LABELS)
    assert search.predict(IMAGES[:5]).shape == (5,)
    assert model.fit(files, LABELS).predict(files[:3]).shape == (3,)
    names = tiny(random_state=0).set_output(transform="pandas").fit_transform(IMAGES)
    assert list(names.columns) == ["encoder0", "encoder1", "encoder2", "encoder3"]


def test_pickled_it_gives_the_same_features(fitted: Encoder) -> None:
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(IMAGES), fitted.transform(IMAGES))


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.chdir(tmp_path)
    before = IMAGES.copy()
    tiny(random_state=np.random.RandomState(3)).fit(IMAGES)
    assert list(tmp_path.iterdir()) == []
    np.testing.assert_array_equal(IMAGES, before)


def test_files_that_cannot_be_read(files: list[Path]) -> None:
    files[4].write_bytes(b"no image")
    encoder = tiny(random_state=0).fit(files)
    assert [Path(path).name for path, _ in encoder.skipped_] == ["04.png"]
    with pytest.raises(InputError, match=r"1 of the 60 images of X cannot be read, the first being .*04\.png; leave"):
        encoder.transform(files)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (DIGITS.data[:20], "20 x 64 features were given; an Encoder takes images: reshape"),
        (DIGITS.images[:20], "X are float64; give uint8"),
        (IMAGES[:1], "holds one image"),
        ([], "X is list of shape"),
        ([1, 2], "X is list of shape"),
        ([IMAGES[0], IMAGES[0, :4]], "X is list of shape"),
        (None, "X is NoneType of shape"),
        ("nowhere", "There is no folder nowhere"),
        (["nowhere/a.png", "nowhere/b.png"], r"cannot be read, the first being .*a\.png"),
    ],
)
def test_what_it_does_not_take_is_one_sentence(given: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as refused:
        tiny().fit(given)
    assert "\n" not in str(refused.value)


def test_what_it_was_not_fitted_for_is_one_sentence(fitted: Encoder) -> None:
    with pytest.raises(NotFittedError):
        tiny().transform(IMAGES)
    with pytest.raises(InputError, match=r"3 channel\(s\), and the encoder was fitted on 1"):
        fitted.transform(np.zeros((2, 8, 8, 3), np.uint8))
    for wrong in ({"method": "simclear"}, {"recipe": "nothing"}, {"settings": "epochs"}, {"epochs": 0}):
        with pytest.raises(InputError):
            tiny(**wrong).fit(IMAGES)


# --- scikit-learn's own suite -----------------------------------------------------------------------------------------


class RowsAsImages(Encoder):
    """scikit-learn's checks know nothing but tables. Here a row is drawn as a picture of 4 x 4 pixels, each a mixture
    of the row's numbers, and the Encoder does the rest: what passes is what it does with parameters, state and order.
    """

    def __init__(
        self,
        recipe: str = "digits-lt",
        epochs: int = 1,
        batch_size: int = 16,
        settings: tuple[str, ...] = (*TINY, "views.size=4"),
        random_state: Any = None,
    ) -> None:
        super().__init__(
            recipe=recipe, epochs=epochs, batch_size=batch_size, settings=settings, random_state=random_state
        )

    def fit(self, X: Any, y: object = None) -> RowsAsImages:
        super().fit(self._drawn(X, reset=True))
        return self

    def transform(self, X: Any) -> Any:
        check_is_fitted(self)
        return super().transform(self._drawn(X, reset=False))

    def _drawn(self, X: Any, reset: bool) -> Any:
        rows = validate_data(self, X, reset=reset, dtype=np.float64, ensure_min_samples=2 if reset else 1)
        mixture = np.random.default_rng(0).normal(size=(rows.shape[1], 16))
        return (255 / (1 + np.exp(-np.clip(rows @ mixture, -30, 30)))).astype(np.uint8).reshape(-1, 4, 4)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array, tags.input_tags.three_d_array, tags.input_tags.string = True, False, False
        return tags


@pytest.mark.slow
@parametrize_with_checks([RowsAsImages()])  # type: ignore[untyped-decorator]
def test_the_checks_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)
