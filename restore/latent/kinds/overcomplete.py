"""A code larger than the picture: without a penalty it learns to copy, noise and all."""

from __future__ import annotations

from restore.latent.kinds.base import Kind

LOSS = Kind
