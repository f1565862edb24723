"""Networks and nothing else: they are built from a config alone and know no task."""

from restore.models.registry import ARCHITECTURES, Architecture, build, config_for, config_from_dict, register

__all__ = ["ARCHITECTURES", "Architecture", "build", "config_for", "config_from_dict", "register"]
