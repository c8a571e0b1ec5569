"""Loading timm and torchvision without torch's compiler.

Both want one thing of the compiler when they are loaded: torchvision, to ask later whether a deterministic RoI align
on a GPU can be compiled; timm, to leave out some functions whenever somebody compiles. For that, ``torch._dynamo`` and
with it half of torch is imported, which takes nearly as long as torch itself. Here that is put off until something is
compiled; everything else about the libraries stays as it is.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
_UTILS = f"{COMPILER}.utils"


def load_timm() -> None:
    """Import timm and torchvision; the compiler is loaded when something is compiled.

    Versions that want more of the compiler than is known here are not loaded; whoever imports timm next does that in
    the ordinary way.
    """
    if COMPILER not in sys.modules:
        with suppress(ImportError, AttributeError), _stand_in():
            importlib.import_module("timm")


@contextmanager
def _stand_in() -> Iterator[None]:
    """Within the block, who imports the compiler gets modules that only know the two questions."""
    package, utils = ModuleType(COMPILER), ModuleType(_UTILS)
    vars(package).update(utils=utils, disable=_disable)
    vars(utils).update(is_compile_supported=_is_compile_supported)
    ours = {COMPILER: package, _UTILS: utils}
    sys.modules.update(ours)
    try:
        yield
    finally:
        for name, module in ours.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _is_compile_supported(device_type: str) -> Any:
    return importlib.import_module(_UTILS).is_compile_supported(device_type)


def _disable(function: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
    """As ``torch._dynamo.disable``, which is only asked if the compiler has been loaded when the function is called."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        if COMPILER not in sys.modules:
            return function(*args, **kwargs)
        disabled = importlib.import_module(COMPILER).disable(function, recursive, **options)
        return disabled(*args, **kwargs)

    return called
