"""Gradatim: methods from the gradient literature for JAX, and the experiments that judge their papers' claims."""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from gradatim import astro as astro
    from gradatim import datasets as datasets
    from gradatim import implicit as implicit
    from gradatim import lab as lab
    from gradatim import landscape as landscape
    from gradatim import nets as nets
    from gradatim import numerics as numerics
    from gradatim import optim as optim
    from gradatim import physics as physics
    from gradatim import sciml as sciml
    from gradatim import transport as transport
    from gradatim.lab import open_record as open_record

_ROOMS = ("astro", "datasets", "implicit", "lab", "landscape", "nets", "numerics", "optim", "physics", "sciml", "transport")


def __getattr__(name: str) -> Any:
    # Lazy, so that `import gradatim` does not import JAX.
    if name in _ROOMS:
        return importlib.import_module(f"gradatim.{name}")
    if name == "open_record":
        return importlib.import_module("gradatim.lab").open_record
    raise AttributeError(f"module 'gradatim' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_ROOMS, "open_record", "__version__"])
