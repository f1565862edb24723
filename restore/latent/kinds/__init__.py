"""The loss of each kind of autoencoder, in a file of its name."""

from __future__ import annotations

from importlib import import_module

from restore.latent.kinds.base import Kind
from restore.latent.options import ModelOptions


def kind_of(options: ModelOptions) -> Kind:
    """The loss that `options` ask for."""
    made: Kind = import_module(f"restore.latent.kinds.{options.kind.replace('-', '_')}").LOSS(options)
    return made


__all__ = ["Kind", "kind_of"]
