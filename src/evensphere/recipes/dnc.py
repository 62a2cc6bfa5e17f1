"""DnC (Tian, Henaff & van den Oord, "Divide and Contrast", ICCV 2021): on top of any self-supervised method.

    1. base      the method on all images, N1 epochs; k-means of its representations divides the images into K clusters
    2. experts   the method on the images of each cluster alone, from scratch; N2 epochs in all, measured on the whole
                 data set and dealt out by the clusters' sizes, which makes N2 epochs of each expert's own images
    3. distil    one network regresses the base's and the experts' embeddings, N3 epochs (methods/distill.py)

All networks have one architecture, so the whole costs about N1 + N2 + N3 = `epochs` epochs of the method. The clusters
are those of the projector's hidden layer, by cosine similarity (appendix C), found with at most 1.5 million images.

    evensphere train RECIPE --set stages=dnc [--set stages.clusters=10] [--set method=moco ...]

GH acts in the base and in the experts. Its paper lists DnC among the methods that it improves and says of GH that it
leaves the method's own setting as it is and adds a loss to a self-supervised one; of how the two were put together no
more is known to us. So we read it plainly: DnC's method may be any, and the method harmonized is one. Each stage that
learns from views has GH with the recipe's own durations, anchors and learning rate, and an expert's pi is that of its
cluster. Distillation has no contrastive loss that GH could balance: its targets are harmonized already. It runs with
one cosine in every arm.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor, nn

from evensphere.data.augment import Views
from evensphere.data.source import Source, take
from evensphere.disk import make_folder
from evensphere.engine.evaluate import features_of
from evensphere.errors import InputError
from evensphere.methods import DISTILLATION
from evensphere.methods.base import Method
from evensphere.metrics.cluster import cosine_k_means
from evensphere.ops.schedule import Duration, Progress
from evensphere.recipes.images import images_of, splits_of, write_images
from evensphere.recipes.network import projector_of, trained_method
from evensphere.recipes.part import Part, build, options_of
from evensphere.recipes.recipe import Recipe, without_auto
from evensphere.recipes.stages import Stage, Stages
from evensphere.rundir import RunDir
from evensphere.untrusted import read_json_object


class DnC(Stages):
    """Base, clusters, experts, distillation.

    clusters: K, >= 2 (the paper: 5, or 10 for the longest schedule). A cluster that holds a single image is given up.
    base, experts: N1 and N2, as durations of the whole run; what is left is the distillation's. The defaults are the
        paper's schedule of 3,000 epochs, 1000 + 1500 + 500 (that of 1,000 has 200 + 600 + 200).
    """

    def __init__(
        self, clusters: int = 5, base: Duration | str | float = 1 / 3, experts: Duration | str | float = 1 / 2
    ) -> None:
        if clusters < 2:
            raise InputError(f"clusters = {clusters} was given; DnC divides the images into at least 2 (the paper: 5).")
        self.clusters, self.base, self.experts = clusters, Duration.parse(base), Duration.parse(experts)

    def check(self, method: Method) -> None:
        projector_of(method)

    def epochs(self, total: int) -> tuple[int, int, int]:
        """N1, N2 and N3 of a run of `total` epochs. Raises InputError where one of them would be 0."""
        for name, share in (("base", self.base), ("experts", self.experts)):
            if share.unit == "steps":
                raise InputError(f"stages.{name} = {share} was given; a stage is measured in epochs or a fraction.")
        base, experts = (share.epochs(Progress(0, 1, total)) for share in (self.base, self.experts))
        lengths = base, experts, total - base - experts
        if min(lengths) < 1:
            raise InputError(
                f"{total} epochs leave {base} to the base, {experts} to the experts and {lengths[2]} to the "
                "distillation; each needs 1 at least, so give more epochs or other shares."
            )
        return lengths

    def sequence(self, recipe: Recipe, folder: Path, console: Console) -> Iterator[Stage]:
        assert recipe.epochs != "auto", "a run in stages decides its length first"
        base_epochs, expert_epochs, distil_epochs = self.epochs(recipe.epochs)
        distil_schedule = _one_cosine(recipe.schedule)
        for schedule, epochs in ((recipe.schedule, expert_epochs), (distil_schedule, distil_epochs)):
            build("schedule", without_auto(schedule), epochs=epochs)  # found out now, not after days
        base = RunDir(folder / "00-base")
        yield Stage(base.path.name, replace(recipe, stages=None, epochs=base_epochs, resolved={}), first_epoch=0)

        # all that was open is decided; the data may have moved since
        decided = Recipe.from_json(base.read_recipe())
        decided = replace(decided, data=recipe.data, workers=recipe.workers, resolved=decided.found_out)
        clusters = RunDir(folder / "01-clusters")
        parts = self._divide(base, decided, clusters, console)
        experts = [f"{2 + k:02}-expert-{k:02}" for k in range(len(parts))]
        for name, part in zip(experts, parts, strict=True):
            yield Stage(name, replace(decided, epochs=expert_epochs, images=str(part)))

        distilling = _distilling(decided, base.read_recipe()["resolved"]["embedding_dim"])
        distilling = replace(
            distilling,
            schedule=_one_cosine(decided.schedule),
            epochs=distil_epochs,
            images=str(clusters.images_file),
            teachers=tuple(f"../{name}" for name in (base.path.name, *experts)),
        )
        yield Stage(f"{2 + len(parts):02}-distil", distilling, first_epoch=base_epochs + expert_epochs)

    def _divide(self, base: RunDir, recipe: Recipe, folder: RunDir, console: Console) -> list[Path]:
        """A list of images for each cluster, as files in `folder`. clusters.json, written last, says that all is there;
        images.json lists the images of all clusters in the base's order."""
        done = folder.path / "clusters.json"
        if not done.exists():
            console.print(f"Stage {folder.path.name}: k-means")
            source, features = _represent(base, recipe)
            nearest = cosine_k_means(features, self.clusters, recipe.seed)
            sizes = torch.bincount(nearest).tolist()
            make_folder(folder.path)
            write_images(folder, source)
            for k in range(len(sizes)):
                locations = [source.location(i) for i in (nearest == k).nonzero()[:, 0].tolist()]
                folder.write_json(folder.path / f"cluster-{k:02}.json", {"images": locations})
            folder.write_json(done, {"sizes": sizes, "asked_for": self.clusters})
            console.print(f"Clusters of {', '.join(map(str, sizes))} images")
        return [folder.path / f"cluster-{k:02}.json" for k in range(len(_sizes(done)))]


def _sizes(file: Path) -> list[int]:
    """How many images each cluster has, by clusters.json."""
    sizes = (read_json_object(file) or {}).get("sizes")
    if not isinstance(sizes, list):
        raise InputError(f"{file} cannot be read; delete its folder to divide the images again.")
    return sizes


def _represent(base: RunDir, recipe: Recipe) -> tuple[Source, Float[Tensor, "n d"]]:
    """The base's images that can still be read, and what its projector's hidden layer makes of them."""
    source = images_of(base, splits_of(recipe).pretrain)
    views: Views = build("views", recipe.views, seed=recipe.seed)
    device = Fabric(accelerator="auto", devices=1).device
    features, index = features_of(HiddenLayer(trained_method(base)).to(device), source, views)
    return take(source, index), features


class HiddenLayer(nn.Module):
    """What the last linear layer of a method's projector is given; the features themselves if it is the only one."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.encoder, self.projector = method.encoder, projector_of(method)
        linear = [module for module in self.projector.modules() if isinstance(module, nn.Linear)]
        self._last = (linear[-1] if linear else self.projector,)  # in a tuple it is no second child

    def forward(self, images: Float[Tensor, "batch c h w"]) -> Float[Tensor, "batch d"]:
        given: list[Tensor] = []
        with self._last[0].register_forward_pre_hook(lambda _, arguments: given.append(arguments[0])):
            self.projector(self.encoder(images))
        return given[0]


def _one_cosine(schedule: Part) -> Part:
    """The schedule without GH's stage change."""
    if schedule.name != "two-stage":
        return schedule
    known = options_of("schedule", "plain")
    return Part("plain", **{name: value for name, value in schedule.options.items() if name in known})


def _distilling(recipe: Recipe, embedding_dim: int) -> Recipe:
    """The recipe with distillation in the method's place, without GH and without local views."""
    views = recipe.views.replace(local_views=0) if "local_views" in recipe.views.options else recipe.views
    method = Part(DISTILLATION, embedding_dim=embedding_dim)
    return replace(recipe, method=method, harmonizer=Part("none"), views=views)
