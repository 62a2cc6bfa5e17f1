"""DINO (Caron et al., ICCV 2021): a student predicts, from any view, what its slow twin makes of another, full one.

    logits       g = C z / |z|               z the bottleneck of the head, rows of C of unit length; K of them
    teacher      q = softmax((g - c) / teacher_temperature)      full views only, no gradient: centred and sharpened
    student      p = softmax(g / student_temperature)
    loss         mean over teacher views v and student views w other than v of   - sum over outputs of q_v log p_w

    centre       c <- m c + (1 - m) mean of the teacher's g      over full views and images of all processes
    teacher      <- l teacher + (1 - l) student                  l rises to 1 over the run

The head is Linear, GELU, Linear, GELU, Linear (the bottleneck), then C (the authors' norm_last_layer). Local views
(`views.local_views`) are the student's only. The authors clip gradients at 3 and let the weight decay rise; these are
the optimiser's affairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import normalize, softmax

from evensphere.errors import InputError
from evensphere.methods.base import Method, Output, split_views
from evensphere.nn.memory import EmaTwin
from evensphere.ops import collective
from evensphere.ops.crossview import cross_view_entropy
from evensphere.ops.precision import no_autocast, real
from evensphere.ops.schedule import Duration, Progress
from evensphere.values import check_memory


class DinoHead(nn.Module):
    """From features to the bottleneck, and from there to the cosines with `outputs` directions."""

    def __init__(self, features: int, hidden: int, bottleneck: int, outputs: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):  # as the authors do
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.directions = nn.Parameter(torch.randn(outputs, bottleneck))

    def forward(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch outputs"]:
        return self.score(self.bottleneck(features))

    def bottleneck(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch dim"]:
        z: Tensor = self.layers(features)
        return z

    def score(self, z: Float[Tensor, "batch dim"], frozen: bool = False) -> Float[Tensor, "batch outputs"]:
        """Cosines with the directions, which take no gradient while they are `frozen`."""
        directions = self.directions.detach() if frozen else self.directions
        with no_autocast(z):
            unit = normalize(real(z), dim=1)
            return unit @ normalize(directions.to(unit), dim=1).T


class DINO(Method):
    """Self-distillation from a momentum twin. Takes two or more full views and any number of local ones.

    embedding_dim: width of the head's bottleneck (the paper: 256). hidden: of its two hidden layers (the paper: 2048).
    outputs: K, >= 2 (the paper: 65536, for a million images).
    student_temperature: > 0 (the paper: 0.1).
    teacher_temperature: > 0, from the first to the second number along a line in the first `teacher_warm_up` (the
        paper: 0.04 to 0.07 in 30 epochs).
    centre_momentum: m, in [0, 1] (the paper: 0.9).
    twin_momentum: l at the start, in [0, 1] (the paper: 0.996; the shorter the run, the lower).
    frozen: how long C stays as it is at the start (the authors' code: one epoch).
    """

    full_views, local_views = None, True
    centre: Float[Tensor, " outputs"]

    def __init__(
        self,
        encoder: nn.Module,
        embedding_dim: int = 256,
        hidden: int = 512,
        outputs: int = 1024,
        student_temperature: float = 0.1,
        teacher_temperature: tuple[float, float] = (0.04, 0.07),
        teacher_warm_up: Duration | str | float = "30 epochs",
        centre_momentum: float = 0.9,
        twin_momentum: float = 0.996,
        frozen: Duration | str | float = "1 epoch",
    ) -> None:
        super().__init__()
        if not min(student_temperature, *teacher_temperature) > 0:
            raise InputError(
                f"Temperatures of {student_temperature} and {teacher_temperature} were given; they must be above 0."
            )
        if not 0 <= centre_momentum <= 1:
            raise InputError(f"centre_momentum = {centre_momentum} was given; it must be between 0 and 1.")
        if outputs < 2:
            raise InputError(f"outputs = {outputs} was given; DINO needs at least 2.")
        widths = [int(encoder.num_features), hidden, hidden, embedding_dim, outputs]  # type: ignore[arg-type]
        if min(widths) < 1:
            raise InputError(f"A head of widths {widths} was asked for; each must be at least 1.")
        check_memory(f"A head of widths {widths}", 8.0 * sum(a * b for a, b in pairwise(widths)))
        self.encoder = encoder
        self.head = DinoHead(int(encoder.num_features), hidden, embedding_dim, outputs)  # type: ignore[arg-type]
        self.twin = EmaTwin(nn.Sequential(encoder, self.head), twin_momentum, rising=True)
        self.register_buffer("centre", torch.zeros(outputs))
        self.embedding_dim = embedding_dim
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.teacher_warm_up, self.frozen = Duration.parse(teacher_warm_up), Duration.parse(frozen)
        self.centre_momentum = centre_momentum

    def forward(
        self, views: Sequence[Float[Tensor, "batch c _ _"]], index: Int64[Tensor, " batch"] | None, progress: Progress
    ) -> Output:
        full, local = split_views(views)
        frozen = progress.step < self.frozen.steps(progress)
        embeddings = tuple(self.head.bottleneck(self.encoder(view)) for view in (*full, *local))
        student = torch.stack([self.head.score(z, frozen) for z in embeddings])
        teacher = torch.stack([self.twin(view) for view in full])
        labels = softmax((teacher - self.centre) / self.sharpness(progress), dim=-1)
        per_sample = cross_view_entropy(student, labels, self.student_temperature)
        loss = collective.mean(per_sample)
        mean = collective.mean(teacher.transpose(0, 1)).mean(0)
        logs = {"ssl": loss.detach(), "teacher_entropy": collective.mean(torch.special.entr(labels).sum(-1).mean(0))}
        return Output(loss, embeddings[: len(full)], logs, per_sample, (mean,))

    @property
    def projector(self) -> nn.Module:
        """What makes embeddings of features, under the name that it has in the other methods."""
        return self.head.layers

    def sharpness(self, progress: Progress) -> float:
        """The teacher's temperature in this epoch."""
        first, last = self.teacher_temperature
        rising = self.teacher_warm_up.epochs(progress) - 1  # the last of these epochs has the second number
        return first + (last - first) * (min(1.0, progress.epoch / rising) if rising > 0 else 1.0)

    @torch.no_grad()
    def after_step(self, index: Int64[Tensor, " batch"] | None, output: Output, progress: Progress) -> None:
        """Move the twin towards the student, and the centre towards what the teacher said."""
        self.twin.follow(nn.Sequential(self.encoder, self.head), progress)
        self.centre.lerp_(output.carried[0].to(self.centre), 1 - self.centre_momentum)
