"""Optional packages of `restore latent`; where one is missing, the error says how to install it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from restore.errors import UsageError, install_hint

# Module -> the extra of the package that brings it.
EXTRAS = {
    "matplotlib": "latent",
    "sklearn": "latent",
    "umap": "umap",
    "usearch": "search",
    "constriction": "compress",
}


def need(module: str) -> Any:
    """The module, imported.

    Raises:
        UsageError: It is not installed; the text says how to.
    """
    extra = EXTRAS[module.partition(".")[0]]
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise UsageError(f"this needs {name}: {install_hint(extra)}") from error
