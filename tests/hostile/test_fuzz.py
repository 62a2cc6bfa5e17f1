"""Whatever bytes come in: success or an InputError, within 10 seconds of computing and 2 GB, and no crash.

By default about 100 inputs for each target, the same ones every time; `pytest -m soak tests/hostile` tries 10,000 new
ones, of which 100 are trained on. A find is kept as a file, to become a regression test.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.torch import save as save_safetensors
from tests.hostile import seeds
from tests.hostile.fuzz import JSON_VALUES, Worker, as_bytes, json_mutations, mutations
from tests.hostile.targets import TARGETS

ONES = torch.ones(2, 3)
REGRESSIONS = Path(__file__).parents[1] / "regressions"

_NAMES = ("epochs", "batch_size", "seed", "workers", "precision", "storage", "metrics", "monitor", "evaluate_every")
_OPTIONS = (
    *("data.imbalance", "data.seed", "data.largest", "data.validation_per_class", "views.size", "views.scale"),
    *(
        "views.flip",
        "views.jitter",
        "views.num_views",
        "views.mean",
        "views.blur",
        "views.local_views",
        "backbone.width",
    ),
    *("backbone.stages", "backbone.blocks", "backbone.stem", "method.temperature", "method.embedding_dim", "method"),
    *("harmonizer.anchors", "harmonizer.warm_up", "harmonizer.ramp", "harmonizer.queue", "harmonizer.weight"),
    *("harmonizer.momentum", "harmonizer.sinkhorn_temperature", "harmonizer.tolerance", "harmonizer", "backbone"),
    *("optimizer.momentum", "optimizer.weight_decay", "optimizer", "schedule.learning_rate", "schedule.warm_up"),
)
_METHODS = st.sampled_from(
    ["moco", "byol", "simsiam", "barlow", "vicreg", "swav", "dino", "pmsn", "bcl", "ts", "sdclr"]
)
_VALUES = st.one_of(
    JSON_VALUES.map(lambda value: json.dumps(value)),
    st.text(max_size=12),
    st.integers(-5, 200).map(str),
    st.floats(0, 2).map(str),
    _METHODS,
    st.sampled_from(["1 epoch", "3 steps", "1e99 steps", "0.5", "none", "knn,probe", "NaN", "1e400", "1" * 5000]),
)
SETTINGS = st.lists(
    st.one_of(st.builds("{}={}".format, st.sampled_from(_NAMES + _OPTIONS), _VALUES), st.text(max_size=20)), max_size=4
)
LINES = st.lists(
    st.text(max_size=20) | st.sampled_from(["a/1.png 0", "../../b.png 1", "c.png", "/dev/zero 7"]), max_size=6
).map("\n".join)


# odd, but within what a run may be asked for: most of these are trained
ODDITIES = st.lists(
    st.one_of(
        st.builds("method={}".format, _METHODS),
        st.builds("optimizer={}".format, st.sampled_from(["sgd", "lars", "adamw", "asam"])),
        st.builds("precision={}".format, st.sampled_from(["32-true", "64-true", "bf16-mixed"])),
        st.builds("harmonizer.anchors={}".format, st.integers(2, 60)),
        st.builds("harmonizer.queue={}".format, st.integers(0, 300)),
        st.builds("harmonizer.{}={}".format, st.sampled_from(["warm_up", "ramp", "weight"]), st.floats(0, 1)),
        st.builds("schedule.learning_rate={}".format, st.floats(1e-6, 1e6)),
        st.builds("views.size={}".format, st.integers(2, 20)),
        st.builds("views.{}={}".format, st.sampled_from(["flip", "blur", "solarize"]), st.floats(0, 1)),
        st.builds("batch_size={}".format, st.integers(2, 700)),
        st.builds("backbone.{}={}".format, st.sampled_from(["width", "blocks", "stages"]), st.integers(1, 4)),
        st.builds("{}={}".format, st.sampled_from(["metrics", "monitor"]), st.sampled_from(["knn", "", "knn,knn"])),
        st.builds("seed={}".format, st.integers(0, 2**63 - 1)),
    ),
    max_size=4,
)


def run_folder(content: dict[str, Any]) -> bytes:
    """A run folder's files as text, for the target `report`."""
    texts = {
        name: "\n".join(map(json.dumps, value)) if isinstance(value, list) else json.dumps(value)
        for name, value in content.items()
    }
    return as_bytes(texts | {"skipped.csv": str(content.get("skipped.csv", ""))})


BYTES: dict[str, st.SearchStrategy[bytes]] = {
    "image": mutations(*seeds.IMAGES),
    "list": LINES.map(lambda text: text.encode("utf-8", "surrogatepass")) | mutations(b"a/1.png 0\nb/2.png 1\n"),
    "json_list": json_mutations({"images": ["a/1.png", "b/2.png"]}).map(as_bytes) | mutations(b'{"images": ["a"]}'),
    "csv": mutations(b'path,label,split\na/1.png,x,train\n"b,""2.png",y,train\nc.png,x,test\n'),
    "parquet": mutations(seeds.parquet(), seeds.parquet(compression="zstd")),
    "zip": mutations(seeds.zipped(zipfile.ZIP_STORED), seeds.zipped(zipfile.ZIP_DEFLATED)),
    "tar": mutations(seeds.tar(), seeds.tar(kind=2)),
    "npy": mutations(seeds.npy(seeds.PIXELS), seeds.npy(seeds.PIXELS[None].repeat(4, 0))),
    "npz": mutations(seeds.npz(images=seeds.PIXELS[None].repeat(4, 0), labels=[0, 0, 1, 1])),
    "card": json_mutations(seeds.CARD).map(as_bytes),
    "recipe": json_mutations(seeds.recipe()).map(as_bytes) | mutations(as_bytes(seeds.recipe())),
    "settings": SETTINGS.map(as_bytes),
    "checkpoint": mutations(seeds.checkpoint()),
    "encoder": mutations(seeds.encoder()),
    "weights": mutations(seeds.weights(), save_safetensors({"0.weight": ONES, "0.bias": ONES[:, 0].clone()})),
    "report": json_mutations(seeds.RUN_FILES).filter(lambda value: isinstance(value, dict)).map(run_folder),
    "training": st.builds(
        lambda chosen, pictures: as_bytes({"settings": chosen, "images": [picture.hex() for picture in pictures]}),
        ODDITIES,
        st.just([])
        | st.lists(mutations(*seeds.IMAGES), max_size=8).map(lambda some: [*some, *seeds.IMAGES[: 2 + len(some)]]),
    ),
}
BY_DEFAULT = {"report": 15, "recipe": 60, "settings": 60}  # slower ones; 100 of the others
SOAKED = {"training": 100}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    worker = Worker(tmp_path_factory.mktemp("worker") / "errors.txt")
    yield worker
    worker.close()


def fuzz(worker: Worker, target: str, examples: int, anew: bool) -> None:
    phases = [Phase.generate]  # a find is small enough as it is

    @settings(
        max_examples=examples,
        derandomize=not anew,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
    )
    @given(BYTES[target])
    def check(content: bytes) -> None:
        worker.check(target, content)

    check()


@pytest.mark.parametrize("target", [target for target in TARGETS if target not in SOAKED])
def test_any_bytes_end_well(target: str, worker: Worker) -> None:
    fuzz(worker, target, BY_DEFAULT.get(target, 100), anew=False)


@pytest.mark.parametrize("file", sorted(REGRESSIONS.glob("*/*")), ids=lambda file: f"{file.parent.name}/{file.name}")
def test_what_was_found_ends_well(file: Path, worker: Worker) -> None:
    worker.check(file.parent.name, file.read_bytes())


@pytest.mark.soak
@pytest.mark.parametrize("target", TARGETS)
def test_soak(target: str, worker: Worker) -> None:
    """10,000 inputs in all. The outcomes go to docs/log.md."""
    examples = SOAKED.get(target, 9900 // (len(TARGETS) - len(SOAKED)))
    finds = []
    for _ in range(examples // 20):  # in small parts, so that one find does not end it all
        try:
            fuzz(worker, target, 20, anew=True)
        except AssertionError as found:
            finds.append(str(found))
    print(f"\n{target}: " + ", ".join(f"{how} {n}" for (name, how), n in worker.outcomes.items() if name == target))
    assert not finds, "\n\n".join(finds)
