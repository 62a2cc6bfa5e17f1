"""Networks compiled by torch: fewer and larger kernels for the same numbers, up to the rounding of the last bits.

So it is a choice that a recipe makes and a run keeps. What it wins depends on the machine (docs/log.md): on two CPU
cores an eighth for a small network, next to nothing for a ResNet-18, after half a minute of compiling.
"""

from __future__ import annotations

import os
import shutil

from evensphere.errors import InputError
from evensphere.methods.base import Method

_COMPILERS = ("g++", "clang++", "cl")  # of which torch wants one, on a GPU too


def compile_networks(method: Method) -> None:
    """Have the method's encoder and its twins compiled when they are first used. Their state dictionaries stay as they
    are. Raises InputError where there is no C++ compiler."""
    check_compiler()
    for module in method.modules():
        if type(module) is type(method.encoder):
            module.compile()


def check_compiler() -> None:
    """Raise InputError where torch has no compiler to work with."""
    chosen = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([chosen] if chosen else _COMPILERS)):
        missing = f"there is no {chosen} (see CXX)" if chosen else f"there is none of {', '.join(_COMPILERS)}"
        raise InputError(f"compile=true was given, but {missing} to compile with; install one, or set compile=false.")
