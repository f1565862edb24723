"""Operators that damage a clean image. Each file holds one; import what you need from there.

`augment` (which needs albumentations) is imported by itself: restoring never does.
"""

from restore.corruptions.base import Corrupted, Corruption

__all__ = ["Corrupted", "Corruption"]
