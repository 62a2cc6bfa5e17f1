"""Nothing needs an optional package but the file that is there for it."""

from __future__ import annotations

import subprocess
import sys

import pytest

OPTIONAL = {"lightly", "lightning", "pytorch_lightning", "accelerate", "stable_pretraining", "datasets", "webdataset"}


def run_without(blocked: set[str], code: str) -> str:
    """What a program prints where some packages cannot be imported."""
    script = f"import sys\nsys.modules.update(dict.fromkeys({sorted(blocked)}))\n{code}"  # None: not to be found
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_without_any_of_them_all_the_rest_is_there() -> None:
    said = run_without(
        OPTIONAL,
        """
from evensphere import Encoder, Harmonizer, WithIndex, train
from evensphere.errors import InputError
try:
    import evensphere.integrations.lightning
except InputError as error:
    print(error)
""",
    )
    assert said == "The Lightning callback needs Lightning; pip install 'evensphere[lightning]'."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("there", "used", "expected"),
    [
        ({"pytorch_lightning"}, "sys", "pytorch_lightning"),
        ({"pytorch_lightning", "lightning"}, "sys", "lightning.pytorch"),
        ({"pytorch_lightning", "lightning"}, "pytorch_lightning", "pytorch_lightning"),
        (
            {"pytorch_lightning", "lightning"},
            "pytorch_lightning, lightning.pytorch",
            "lightning.pytorch pytorch_lightning",
        ),
    ],
)
def test_the_callback_is_of_the_lightning_in_use(there: set[str], used: str, expected: str) -> None:
    for package in there:
        pytest.importorskip(package)
    said = run_without(
        OPTIONAL - there,
        f"""
import {used}
from evensphere.integrations.lightning import HarmonizerCallback
found = [one.__module__.removesuffix(".callbacks.callback") for one in HarmonizerCallback.__mro__]
print(*(one for one in found if one in ("lightning.pytorch", "pytorch_lightning")))
""",
    )
    assert said == expected
