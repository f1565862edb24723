"""What people would use instead, each through its own library; none of it is a network.

Every method is told what the damage was (the true noise level, the true mask), which real pictures do not tell.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec

import numpy as np

from restore.colour import chroma_of, in_gamut, with_luma
from restore.corruptions.downsample import resize_bicubic
from restore.corruptions.grayscale import opaque
from restore.errors import RestoreError, UsageError, unknown_name
from restore.evaluation.colour_table import TENTHS
from restore.evaluation.levin import spread_chroma
from restore.evaluation.trials import COVERED, Method, Prediction, Trial
from restore.images.failures import CODEC_ERRORS, reason
from restore.pixels import luma, to_dtype, to_float

LEAST_NOISE = 1e-3  # on the 0-255 scale

# Chosen on pictures of the validation folders, at sigma 15, 25 and 50, from factors of sigma between 0.5 and 1.4:
# the best, or within 0.5 dB of the best, at each.
NLM_LUMA, NLM_COLOUR, NLM_PATCH, NLM_SEARCH = 0.6, 0.8, 7, 21
TV_WEIGHT = 0.75

RADIUS = 3  # pixels; of OpenCV's inpainting


@dataclass(frozen=True)
class Baseline:
    """A method that needs no network.

    about: library and parameters. run: a trial -> (H,W,C), any dtype. package: what has to be
    installed beyond this one's own dependencies. slow: far slower than the others. untouched: gives what no
    restoration at all gives. masked: has to be told where the damage is.
    """

    name: str
    about: str
    run: Callable[[Trial], np.ndarray]
    package: str | None = None
    slow: bool = False
    untouched: bool = False
    masked: bool = False

    @property
    def there(self) -> bool:
        """Whether its library is installed."""
        return self.package is None or find_spec(self.package) is not None

    def method(self) -> Method:
        """This baseline as one who takes part; whatever its library raises becomes a RestoreError."""

        def restore(trial: Trial) -> Prediction:
            if self.masked and trial.covered is None:
                raise RestoreError(f"{self.name}: has to be told where the damage is")
            try:
                restored = self.run(trial)
            except CODEC_ERRORS as error:
                raise RestoreError(f"{self.name}: {reason(error)}") from error
            if not np.isfinite(restored).all():
                raise RestoreError(f"{self.name}: gave values that are no numbers")
            return Prediction(restored)

        return Method(self.name, "input" if self.untouched else "baseline", self.about, restore)


def choose(task: str, names: Sequence[str] | None = None, *, masks: bool = True) -> tuple[list[Baseline], list[str]]:
    """The baselines of `task` (only those in `names`), and a line for each that had to be left out.

    masks: whether it is known where the pictures are damaged. Raises UsageError for a name that `task` does not
    have, and for one asked for that is not installed or lacks its masks.
    """
    known = {baseline.name: baseline for baseline in BASELINES.get(task, ())}
    for name in names or ():
        if name not in known:
            raise unknown_name(f"baseline of {task}", name, known)
        if not known[name].there:
            raise UsageError(f"baseline {name} needs the package {known[name].package}: {_install(known[name])}")
        if known[name].masked and not masks:
            raise UsageError(f"baseline {name} has to be told where the damage is; give --masks")
    wanted = [known[name] for name in dict.fromkeys(known if names is None else names)]
    missing = [f"{b.name} left out: {b.package} is not installed ({_install(b)})" for b in wanted if not b.there]
    blind = [] if masks else [baseline for baseline in wanted if baseline.masked]
    missing += [f"{baseline.name} left out: it has to be told where the damage is (--masks)" for baseline in blind]
    return [baseline for baseline in wanted if baseline.there and baseline not in blind], missing


def _install(baseline: Baseline) -> str:
    return f"pip install {baseline.package}, or this package with its extra `baselines`"


def noise_level(trial: Trial) -> float:
    """Sigma on the 0-255 scale: the true one, or for pictures from files scikit-image's estimate from wavelets.

    Never quite 0, by which the methods would divide.
    """
    sigma = getattr(trial.params, "sigma", None)
    if sigma is None:
        from skimage.restoration import estimate_sigma

        sigma = 255.0 * estimate_sigma(to_float(trial.damage.image), channel_axis=-1, average_sigmas=True)
    return max(float(np.nan_to_num(sigma)), LEAST_NOISE)


def _non_local_means(trial: Trial) -> np.ndarray:
    import cv2

    sigma, image = noise_level(trial), to_dtype(to_float(trial.damage.image), np.uint8)
    if image.shape[-1] == 1:
        return np.asarray(cv2.fastNlMeansDenoising(image, None, NLM_LUMA * sigma, NLM_PATCH, NLM_SEARCH))[..., None]
    # OpenCV takes the channels as BGR; of an RGB picture it would weigh red as blue.
    swapped = np.ascontiguousarray(image[..., ::-1])
    restored = cv2.fastNlMeansDenoisingColored(
        swapped, None, NLM_LUMA * sigma, NLM_COLOUR * sigma, NLM_PATCH, NLM_SEARCH
    )
    return np.asarray(restored)[..., ::-1]


def _wavelets(trial: Trial) -> np.ndarray:
    from skimage.restoration import denoise_wavelet

    image = to_float(trial.damage.image)
    restored = denoise_wavelet(
        image,
        sigma=noise_level(trial) / 255.0,
        method="BayesShrink",
        mode="soft",
        rescale_sigma=True,
        convert2ycbcr=image.shape[-1] == 3,
        channel_axis=-1,
    )
    return np.asarray(restored, np.float32)


def _total_variation(trial: Trial) -> np.ndarray:
    from skimage.restoration import denoise_tv_chambolle

    weight = TV_WEIGHT * noise_level(trial) / 255.0
    return np.asarray(denoise_tv_chambolle(to_float(trial.damage.image), weight=weight, channel_axis=-1), np.float32)


def _bm3d(trial: Trial) -> np.ndarray:
    bm3d = import_module("bm3d")  # has no annotations, and is not always there
    image, sigma = to_float(trial.damage.image), noise_level(trial) / 255.0
    if image.shape[-1] == 1:
        return np.asarray(bm3d.bm3d(image[..., 0], sigma), np.float32)[..., None]
    return np.asarray(bm3d.bm3d_rgb(image, sigma), np.float32)


def _bicubic(trial: Trial) -> np.ndarray:
    return resize_bicubic(trial.damage.image, trial.clean.shape[:2])


def _lanczos(trial: Trial) -> np.ndarray:
    import PIL.Image

    height, width = trial.clean.shape[:2]
    planes = np.moveaxis(to_float(trial.damage.image), -1, 0)
    enlarged = [
        np.asarray(PIL.Image.fromarray(plane).resize((width, height), PIL.Image.Resampling.LANCZOS)) for plane in planes
    ]
    return np.stack(enlarged, axis=-1)


def _fill(trial: Trial, method: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """The damaged picture with what lies under the true mask replaced; all else stays.

    method: the 8-bit picture (H,W,1 or 3) and the mask (H,W) bool -> the filled picture, 8-bit or float.
    """
    image, mask = trial.damage.image, np.asarray(trial.covered)
    restored = image.copy()
    if mask.any():
        filled = method(np.ascontiguousarray(to_dtype(to_float(image), np.uint8)), mask).reshape(image.shape)
        restored[mask] = to_dtype(to_float(filled[mask]), image.dtype)
    return restored


def _telea(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA))


def _navier_stokes(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    import cv2

    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), RADIUS, cv2.INPAINT_NS))


def _biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    from skimage.restoration import inpaint_biharmonic

    return np.asarray(inpaint_biharmonic(image, mask, channel_axis=-1), np.float32)


@cache
def _colours() -> np.ndarray:
    """(256,3): what the table makes of each level of luma, whose luma is that level; white at 1."""
    levels = np.arange(256, dtype=np.float32)[None] / np.float32(255)
    ab = np.array(TENTHS.split(), np.float32).reshape(1, 256, 2) / 10
    chroma = with_luma(levels, ab)[..., ::2] - levels[..., None]
    return np.asarray(in_gamut(levels, chroma)[0])


def _table(trial: Trial) -> np.ndarray:
    image = trial.damage.image
    level = 255 * luma(to_float(image))
    colours = [np.interp(level, np.arange(256), column) for column in _colours().T]  # linear, so that luma stays
    return to_dtype(np.stack(colours, axis=-1), image.dtype)


def _levin(trial: Trial) -> np.ndarray:
    """Each pixel has the mean chroma of its neighbours, alike ones weighing most; the hints have their own."""
    image, hints = trial.damage.image, trial.damage.hints
    grey = luma(to_float(image))
    if hints is None or not opaque(hints).any():
        return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image
    told = opaque(hints)
    chroma = spread_chroma(grey, chroma_of(to_float(hints[..., :3])), told)
    return to_dtype(in_gamut(grey, chroma.astype(np.float32)), image.dtype)


TELEA = Baseline(
    "telea",
    f"OpenCV inpaint, INPAINT_TELEA, radius {RADIUS}, true mask, for marks where opacity > {COVERED} (Telea 2004)",
    partial(_fill, method=_telea),
    masked=True,
)

BASELINES: dict[str, tuple[Baseline, ...]] = {
    "denoise": (
        Baseline(
            "nl-means",
            f"OpenCV fastNlMeansDenoisingColored, true sigma, h = {NLM_LUMA} sigma, hColor = {NLM_COLOUR} sigma, patch "
            f"{NLM_PATCH}, search {NLM_SEARCH}, on the picture rounded to 8 bits as it wants it (Buades et al. 2005)",
            _non_local_means,
        ),
        Baseline(
            "wavelets",
            "scikit-image denoise_wavelet, true sigma, BayesShrink, soft, in YCbCr (Chang et al. 2000)",
            _wavelets,
        ),
        Baseline(
            "total-variation",
            f"scikit-image denoise_tv_chambolle, weight = {TV_WEIGHT} true sigma / 255 (Chambolle 2004)",
            _total_variation,
        ),
        Baseline(
            "cbm3d", "bm3d.bm3d_rgb, true sigma, profile np (Dabov et al. 2007)", _bm3d, package="bm3d", slow=True
        ),
    ),
    "super-resolve": (
        Baseline("bicubic", "torch bicubic interpolation, a = -0.5 (Keys 1981)", _bicubic, untouched=True),
        Baseline("lanczos", "Pillow LANCZOS, 3 lobes, in float", _lanczos),
    ),
    "inpaint": (
        TELEA,
        Baseline(
            "navier-stokes",
            f"OpenCV inpaint, INPAINT_NS, radius {RADIUS}, true mask (Bertalmio et al. 2001)",
            partial(_fill, method=_navier_stokes),
            masked=True,
        ),
        Baseline(
            "biharmonic",
            "scikit-image inpaint_biharmonic, true mask (Damelin and Hoang 2018)",
            partial(_fill, method=_biharmonic),
            masked=True,
        ),
    ),
    "dewatermark": (TELEA,),
    "colorize": (
        Baseline("gray", "the picture as it is", lambda trial: trial.untouched, untouched=True),
        Baseline(
            "table",
            "the mean CIELAB ab of each level of luma in the training pictures, as much as the gamut has at that luma",
            _table,
        ),
        Baseline(
            "levin",
            "the hints, spread by the linear system of Levin et al. 2004 in R-Y and B-Y, scipy's sparse LU",
            _levin,
            slow=True,
        ),
    ),
}
