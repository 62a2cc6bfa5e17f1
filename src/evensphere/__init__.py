"""evensphere: harmonized self-supervised pretraining on unlabelled, long-tailed images.

The public names are imported on first use, so that `import evensphere` costs nothing and loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from evensphere.curation.curate import curate
    from evensphere.curation.rare import find_rare
    from evensphere.diagnosis.diagnose import diagnose
    from evensphere.export.embeddings import embed
    from evensphere.export.export import export_encoder
    from evensphere.gh.harmonizer import Harmonizer
    from evensphere.integrations.indexed import WithIndex
    from evensphere.integrations.scikit_learn import Encoder
    from evensphere.recipes.run import train
    from evensphere.recipes.scoring import evaluate
    from evensphere.report import write_report

__version__ = "0.1.0"

_HOMES = {
    "Encoder": "evensphere.integrations.scikit_learn",
    "curate": "evensphere.curation.curate",
    "diagnose": "evensphere.diagnosis.diagnose",
    "embed": "evensphere.export.embeddings",
    "export_encoder": "evensphere.export.export",
    "find_rare": "evensphere.curation.rare",
    "Harmonizer": "evensphere.gh.harmonizer",
    "WithIndex": "evensphere.integrations.indexed",
    "train": "evensphere.recipes.run",
    "evaluate": "evensphere.recipes.scoring",
    "write_report": "evensphere.report",
}

__all__ = [
    "Encoder",
    "Harmonizer",
    "WithIndex",
    "__version__",
    "curate",
    "diagnose",
    "embed",
    "evaluate",
    "export_encoder",
    "find_rare",
    "train",
    "write_report",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'evensphere' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
