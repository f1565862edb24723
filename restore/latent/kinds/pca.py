"""The linear autoencoder: its best code spans the first principal components (Baldi and Hornik 1989)."""

from __future__ import annotations

from restore.latent.kinds.base import Kind

LOSS = Kind
