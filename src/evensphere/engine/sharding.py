"""Parameters in parts: each process keeps a part of every parameter, of its gradient and of what the optimiser
remembers of it, and gathers the whole of a block only while it computes with that (Zhao et al., "PyTorch FSDP", VLDB
2023).

torch's `fully_shard` does the work. What a run needs besides is here: an optimiser that knows the parts, states that
are gathered to be written and taken apart to be read, and a whole encoder for evaluation. Checkpoints are those of any
run.

Experimental: transformers of timm alone, whose blocks are what is gathered at a time.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from lightning_fabric.strategies.ddp import DDPStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.modules.batchnorm import _BatchNorm

from evensphere.nn.memory import EmaTwin

Sharding = Literal["none", "fsdp"]  # how parameters lie on the processes: a copy on each, or in parts

M = TypeVar("M", bound=nn.Module)


class ShardedStrategy(DDPStrategy):
    """Fabric's strategy of processes that have a part of every parameter, where DDP's have a copy."""

    def setup_module_and_optimizers(
        self, module: M, optimizers: list[torch.optim.Optimizer], scheduler: Any = None
    ) -> tuple[M, list[torch.optim.Optimizer], Any]:
        """Take the parameters apart, in place, and have the optimisers, which know nothing yet, step the parts."""
        whole = dict(module.named_parameters())
        shard(module, self.root_device)
        part_of = {whole[name]: part for name, part in module.named_parameters()}
        for optimizer in optimizers:
            assert not optimizer.state, "it has taken no step yet"
            for group in optimizer.param_groups:
                group["params"] = [part_of[parameter] for parameter in group["params"]]
        return module, optimizers, scheduler


def shard(module: nn.Module, device: torch.device) -> None:
    """Divide all parameters among the processes: a transformer's blocks and slow twins are gathered one at a time, all
    else together while the module computes."""
    from torch.distributed.fsdp import FSDPModule, fully_shard  # some tenths of a second that other runs do without

    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for part in [*_blocks(module), *(one for one in module.modules() if isinstance(one, EmaTwin)), module]:
        fully_shard(part, mesh=mesh)
        assert isinstance(part, FSDPModule)
        part.set_force_sum_reduction_for_comms(True)  # gloo takes no averages


def is_possible() -> bool:
    """Whether this version of torch can do it, on CPUs as well."""
    from torch.distributed.fsdp import FSDPModule

    return hasattr(FSDPModule, "set_force_sum_reduction_for_comms")


def can_be_sharded(encoder: nn.Module) -> bool:
    """Whether an encoder is a transformer, of blocks, without BatchNorm."""
    return any(_blocks(encoder)) and not any(isinstance(module, _BatchNorm) for module in encoder.modules())


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    """The blocks of timm's transformers, in whatever part of the module."""
    for name, child in module.named_modules():
        if name.rpartition(".")[2] == "blocks" and isinstance(child, nn.Sequential | nn.ModuleList):
            yield from child.children()


# --- states -----------------------------------------------------------------------------------------------------------


def gathered(state: Any, keep: bool = True) -> Any:
    """A state with every tensor that lies in parts gathered, on the CPU. All processes must ask for it at the same
    time; those that do not `keep` it get None for such a tensor."""
    if isinstance(state, Mapping):
        return {name: gathered(value, keep) for name, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(gathered(value, keep) for value in state)
    if not is_sharded(state):
        return state
    tensor: Tensor = state.full_tensor()
    return tensor.cpu() if keep else None


def shards_of(state: Mapping[str, Any], like: Mapping[str, Any]) -> Mapping[str, Any]:
    """The parts that this process keeps of a whole state's tensors, divided like those of the same name. It tells the
    others nothing."""
    if not any(map(is_sharded, like.values())):
        return state
    return {name: _shard_of(value, like[name]) if name in like else value for name, value in state.items()}


def shards_of_optimizer(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The same of an optimiser's state, whose tensors of a parameter's shape are divided like the parameter."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if not any(map(is_sharded, parameters)):
        return state

    def divided(number: int, value: Any) -> Any:
        fits = isinstance(value, Tensor) and value.shape == parameters[number].shape
        return _shard_of(value, parameters[number]) if fits else value

    remembered = {i: {name: divided(i, one) for name, one in of.items()} for i, of in state["state"].items()}
    return {**state, "state": remembered}


def _shard_of(value: Any, like: Any) -> Any:
    if not is_sharded(like):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def is_sharded(value: object) -> bool:
    """Whether a value is a tensor of which this process has a part."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """What this process has of a tensor: its part, or all of it."""
    part: Tensor = tensor.to_local() if is_sharded(tensor) else tensor  # type: ignore[attr-defined]
    return part


class WholeEncoder:
    """An encoder as one process has it, whether or not its parameters lie in parts.

    encoder: before they are taken apart, if they will be. copied: whether they will be.
    """

    def __init__(self, encoder: nn.Module, copied: bool) -> None:
        self._copy = copy.deepcopy(encoder) if copied else None

    def of(self, encoder: nn.Module, keep: bool) -> nn.Module:
        """The encoder as it is now. All processes must ask at the same time; it is right in those that `keep` it."""
        if self._copy is None:
            return encoder
        state, like = gathered(encoder.state_dict(), keep), next(encoder.parameters())
        if keep:
            self._copy.to(like.device, like.dtype).load_state_dict(state)
        return self._copy
