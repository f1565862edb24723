"""The losses of the kinds of autoencoder."""

from __future__ import annotations

from restore.latent.kinds.adversarial import Adversarial
from restore.latent.kinds.base import Kind
from restore.latent.kinds.contractive import Contractive
from restore.latent.kinds.denoising import Denoising
from restore.latent.kinds.k_sparse import KSparse
from restore.latent.kinds.sparse import Sparse
from restore.latent.kinds.variational import Variational
from restore.latent.kinds.winner_take_all import WinnerTakeAll
from restore.latent.options import ModelOptions

# The kinds with a loss of their own; the others differ in the network, and minimise the error of the reconstruction.
LOSSES: dict[str, type[Kind]] = {
    "adversarial": Adversarial,
    "contractive": Contractive,
    "denoising": Denoising,
    "k-sparse": KSparse,
    "sparse": Sparse,
    "swap": Denoising,  # the encoder sees pictures moved a little, so that it cannot just copy
    "variational": Variational,
    "winner-take-all": WinnerTakeAll,
}


def kind_of(options: ModelOptions) -> Kind:
    """The loss that `options` ask for."""
    return LOSSES.get(options.kind, Kind)(options)


__all__ = ["Kind", "kind_of"]
