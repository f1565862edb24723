"""A code smaller than the picture, and nothing else."""

from __future__ import annotations

from restore.latent.kinds.base import Kind

LOSS = Kind
