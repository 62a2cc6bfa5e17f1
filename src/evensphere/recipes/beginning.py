"""What a run's encoder begins with where that is no random draw: weights from elsewhere (Recipe.init)."""

from __future__ import annotations

from rich.console import Console
from torch import nn

from evensphere.engine.weights import checksum_of, load_weights, weights_file
from evensphere.errors import InputError
from evensphere.recipes.recipe import Recipe


class Beginning:
    """Called with the encoder when it is made, before the method copies it. resolved: what there is to be written down
    of the weights, empty for a run that begins with random ones."""

    def __init__(self, recipe: Recipe, console: Console) -> None:
        self._weights, self._what, self._console = recipe.init, recipe.backbone.name, console
        self._begun_with = recipe.resolved.get("init", {}).get("sha256")
        self.resolved: dict[str, object] = {}

    def __call__(self, encoder: nn.Module) -> None:
        if self._weights is None:
            return
        checksum = checksum_of(weights_file(self._weights))
        if self._begun_with not in (None, checksum):
            raise InputError(
                f"{self._weights} is not the file that this run was begun with; put that one back, or begin a new run."
            )
        loaded = load_weights(encoder, self._weights, self._what)
        taken = {"layout": loaded.layout, "prefix": loaded.prefix, "tensors": loaded.tensors}
        self.resolved = {"init": {"sha256": checksum, **taken, "left_out": loaded.left_out}}
        self._console.print(f"Begins with {self._weights}: {loaded}", soft_wrap=True)
