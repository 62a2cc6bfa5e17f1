"""Every test runs with the shapes and types of the package's signatures checked (users pay nothing for them)."""

import importlib
from contextlib import suppress
from pathlib import Path

from jaxtyping import install_import_hook

# What others' packages the package and its tests import comes first: whatever is first imported from inside a checked
# module is looked for among the files compiled for such modules, not found, and compiled anew in every process.
OTHERS = (
    *("beartype", "hypothesis", "lightning_fabric", "pandas", "scipy.optimize", "scipy.stats"),
    *("sklearn.cluster", "sklearn.linear_model", "timm", "torch", "torch._dynamo", "torch.onnx"),
    "torchvision.transforms.v2",
)
for other in OTHERS:
    with suppress(ImportError):  # where only what the package needs is installed
        importlib.import_module(other)

DATA = Path(__file__).parents[1] / "src/evensphere/data"

# all but the command line, whose signatures are read by typer, not called by people
CHECKED = (
    "ops",
    "nn",
    "gh",
    "methods",
    # numba compiles functions as they are, not as they are once wrapped in checks
    *(f"data.{file.stem}" for file in DATA.glob("*.py") if file.stem != "kernels"),
    "metrics",
    "engine",
    "recipes",
    "report",
    "curation",
    "export",
    "reproduce",
    "compare",
    "diagnosis",
    "toy",
    "bench",
    # a constructor of scikit-learn's kind takes anything; `fit` looks at it
    "integrations.indexed",
    "integrations.lightning",
    "rundir",
    "disk",
    "errors",
    "untrusted",
    "spreadsheet",
    "values",
)
install_import_hook([f"evensphere.{part}" for part in CHECKED], "signature_checks.typechecked")
