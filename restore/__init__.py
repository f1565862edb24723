"""restore: denoising autoencoders for damaged pictures.

    import restore
    denoise = restore.load("denoise")
    clean = denoise(noisy)  # numpy (H,W,3), uint8; or a Pillow picture, a tensor, a path, a list or iterator of these

Names are imported when they are first used, so that `import restore` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restore.images import Image as Image
    from restore.images import read_image as read_image
    from restore.images import write_image as write_image
    from restore.inference.loading import load as load
    from restore.inference.pipeline import Pipeline as Pipeline
    from restore.inference.restorer import Restorer as Restorer
    from restore.tasks import TASKS as TASKS

__version__ = "0.1.0"
__all__ = ["TASKS", "Image", "Pipeline", "Restorer", "__version__", "load", "read_image", "write_image"]

_WHERE = {
    "Image": "restore.images",
    "Pipeline": "restore.inference.pipeline",
    "Restorer": "restore.inference.restorer",
    "TASKS": "restore.tasks",
    "load": "restore.inference.loading",
    "read_image": "restore.images",
    "write_image": "restore.images",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'restore' has no attribute '{name}'")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
