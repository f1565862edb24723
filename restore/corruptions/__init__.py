"""Operators that damage a clean image, one per module.

`augment` is not imported here: it needs albumentations, which restoring must not load.
"""

from restore.corruptions.base import Corrupted, Corruption

__all__ = ["Corrupted", "Corruption"]
