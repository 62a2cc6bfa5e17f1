"""What a run will take, said before it begins: time, memory and disk, from a short probe of its own first images.

The probe takes real steps (read, crop, augment, forward, backward, optimiser) with copies of the method and the
optimiser, so the run itself begins untouched. It starts with two images and doubles their number as long as the next
step is sure to fit the budget; time is then taken to grow with the images. Evaluation and checkpoints come on top. Of a
run in micro-batches one part is probed, and what is done twice is reckoned.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import psutil
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from evensphere.data.source import ArraySource
from evensphere.engine.out_of_memory import is_out_of_memory, let_go
from evensphere.engine.train import StepModule, Training, milestones
from evensphere.gh.harmonizer import NoHarmonizer
from evensphere.ops import collective
from evensphere.values import as_bytes

_BUDGET = 1.0  # seconds for a probe; a last step may take as many again


class Preflight(NamedTuple):
    """images: of the run. probed: on how many of them time was measured. memory: bytes at the peak, on the GPU where
    there is one, else of this process. disk: bytes of the run folder at most."""

    images: int
    epochs: int
    seconds_per_epoch: float
    probed: int
    memory: float
    disk: int
    gpu: bool

    def __str__(self) -> str:
        whole = (
            f" and {as_time(self.seconds_per_epoch * self.epochs)} for all {self.epochs:,}" if self.epochs > 1 else ""
        )
        return (
            f"{self.images:,} images, about {as_time(self.seconds_per_epoch)} an epoch{whole} "
            f"(measured on {self.probed} images), {as_bytes(self.memory)} {'GPU ' if self.gpu else ''}memory, "
            f"{as_bytes(self.disk)} disk."
        )


def preflight(training: Training, fabric: Fabric, clock: Callable[[], float] = time.perf_counter) -> Preflight | None:
    """Probe a run that has not begun; None if its first images have become unreadable, or if there is not enough memory
    for it, of which training will say more. clock: seconds.

    Of several processes one measures, with its share of a batch; what they tell each other comes on top.
    """
    loader, processes, part = training.loader, collective.world_size(), training.part_size
    share = math.ceil(loader.batch_size / processes)
    try:
        with collective.alone():
            probe = _Probe(training, fabric)
            reading, steps = _measure(probe, part, clock)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        let_go(error)
        return None
    if not probe.saved:
        return None
    step = max(0.0, extrapolated(steps, share) / share - reading)
    if training.micro_batches > 1:
        step *= 4 / 3  # one of a forward and a backward pass, which takes twice as long, is done again
    state, moments = _bytes_of(probe.state()), _bytes_of(probe.optimizer.state_dict())
    gpu = fabric.device.type == "cuda"
    peak = extrapolated(probe.saved, part) + probe.parameters + moments  # gradients are as large as parameters
    return Preflight(
        images=len(loader.source),
        epochs=training.epochs,
        seconds_per_epoch=len(loader.source) * _together(reading, step, training, gpu) / processes,
        probed=max(steps),
        memory=peak + state + (_images_on_device(training) if gpu else psutil.Process().memory_info().rss),
        disk=(state + moments) * _checkpoints_at_most(training) + 2 * probe.encoder,
        gpu=gpu,
    )


def _checkpoints_at_most(training: Training) -> int:
    """The last ones, one that is being written before an old one goes, the best one and the milestones."""
    return training.keep_checkpoints + 1 + (training.monitor is not None) + len(milestones(training))


def _measure(probe: _Probe, batch_size: int, clock: Callable[[], float]) -> tuple[float, dict[int, float]]:
    """(seconds to read an image, {number of images: seconds of a step with them, reading included})"""
    begun, count = clock(), min(2, batch_size)
    probe.take(count)  # also starts what is only started once, so it does not count
    reading, steps = [], {}
    while True:
        before = clock()
        probe.load(count)
        loaded = clock()
        probe.take(count)
        done = clock()
        reading.append((loaded - before) / count)
        steps[count] = done - loaded
        larger = min(2 * count, batch_size)
        if larger == count or (len(steps) > 1 and done - begun + 2 * (done - before) > _BUDGET):
            return min(reading), steps
        count = larger


def extrapolated(measured: Mapping[int, float], count: int) -> float:
    """What a step with `count` images takes, by the fewest and the most images it was measured on: some for each image
    and some whatever their number. At least what the most took, at most in proportion to that."""
    few, many = min(measured), max(measured)
    in_proportion = measured[many] * count / many
    if few == many:
        return in_proportion
    slope = (measured[many] - measured[few]) / (many - few)
    return min(max(measured[many] + slope * (count - many), measured[many]), in_proportion)


class _Probe:
    """Steps with copies of the parts that a step changes."""

    def __init__(self, training: Training, fabric: Fabric) -> None:
        self.fabric, self.harmonizer = fabric, training.harmonizer
        method, optimizer = copy.deepcopy((training.method, training.optimizer))
        method.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.training = replace(training, method=method, optimizer=optimizer, harmonizer=NoHarmonizer())
        self.optimizer = optimizer
        self.progress = training.progress(0)
        self.parameters = _bytes_of(p for p in method.parameters() if p.requires_grad)
        self.encoder = _bytes_of(method.encoder.parameters())
        self.saved: dict[int, float] = {}  # bytes kept for the backward pass, by the number of images

    def load(self, count: int) -> Any:
        return self.training.loader.first(count)

    def take(self, count: int) -> None:
        """One step with the run's first images."""
        batch = self.load(count)
        if batch is None:
            return
        method = self.training.method
        kept = _SavedBytes()

        def closure(image_weights: Tensor | None = None) -> Tensor:
            views = self.training.views_of(batch, self.progress, self.fabric.device)
            with kept, self.fabric.autocast():
                loss: Tensor = method(views, self.training.numbers(batch), self.progress).loss
            loss.backward()
            return loss

        with torch.random.fork_rng():
            self.optimizer.step(closure)  # type: ignore[arg-type]  # torch's own closures return a float
        self.optimizer.zero_grad()
        if self.fabric.device.type == "cuda":
            torch.cuda.synchronize()
        self.saved[len(batch.index)] = kept.total()

    def state(self) -> dict[str, Any]:
        return StepModule(self.training.method, self.harmonizer).state_dict()


class _SavedBytes(saved_tensors_hooks):
    """Counts what the forward pass keeps for the backward pass."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        super().__init__(self._pack, _as_it_is)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        self._sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    def total(self) -> int:
        return sum(self._sizes.values())


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _together(reading: float, step: float, training: Training, gpu: bool) -> float:
    """Seconds an image when reading and training go on side by side."""
    if isinstance(training.loader.source, ArraySource) or training.loader.workers == 0:
        return reading + step
    workers = training.loader.workers
    if gpu:
        return max(reading / workers, step)
    cores = psutil.cpu_count() or 1
    return reading / min(workers, cores) + step  # both want the same cores


def _images_on_device(training: Training) -> int:
    source = training.loader.source
    on_device = isinstance(source, ArraySource) and source.images.is_cuda
    return source.images.nbytes if on_device and isinstance(source, ArraySource) else 0


def _bytes_of(content: Any) -> int:
    """Of all tensors in nested dicts and sequences."""
    if isinstance(content, Tensor):
        return content.nbytes
    if isinstance(content, dict):
        return _bytes_of(content.values())
    if isinstance(content, Iterable) and not isinstance(content, str | bytes):
        return sum(_bytes_of(item) for item in content)
    return 0


def as_time(seconds: float) -> str:
    """'12 min'"""
    for unit, length in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            count = seconds / length
            return f"{count:,.0f} {unit}" if count >= 10 else f"{count:.1f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
