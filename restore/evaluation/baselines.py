"""Baselines: classical methods without a network, each from its own library.

Every method gets the true parameters of the damage (noise level, mask), which are unknown for real pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from importlib.util import find_spec

import cv2
import numpy as np

from restore.colour import chroma_of, in_gamut, with_luma
from restore.corruptions.downsample import KERNELS, resize_pillow
from restore.corruptions.grayscale import opaque
from restore.errors import RestoreError, UsageError, install_hint, unknown_name
from restore.evaluation.colour_table import TENTHS
from restore.evaluation.trials import MIN_OPACITY, Method, Prediction, Trial
from restore.images.failures import reason
from restore.pixels import luma, to_dtype, to_float, to_rgb

MIN_SIGMA = 1e-3  # on the 0-255 scale

# Factors of sigma, chosen on validation pictures among values between 0.5 and 1.4: at sigma 15, 25 and 50 the best, or
# within 0.5 dB of it.
NLM_LUMA, NLM_COLOUR, NLM_PATCH, NLM_SEARCH = 0.6, 0.8, 7, 21
TV_WEIGHT = 0.75

RADIUS = 3  # pixels, of OpenCV's inpainting

# Of Levin et al. 2004: neighbours r and s have the affinity exp(-(r - s)^2 / v) + FLOOR, where v is `SHARE` of the
# variance in the window of r, and at least `LEAST`.
SHARE, LEAST, FLOOR = 0.6, 2e-6, 1e-6


@dataclass(frozen=True)
class Baseline:
    """A method without a network."""

    name: str  # on the command line and in tables
    about: str  # library and parameters
    run: Callable[[Trial], np.ndarray]  # restores a trial: (H,W,C), any dtype
    package: str | None = None  # an optional dependency that it needs
    slow: bool = False  # much slower than the others
    identity: bool = False  # equals no restoration (see `Head.identity`)
    needs_mask: bool = False  # needs the mask of the damage

    @property
    def available(self) -> bool:
        """Whether its package is installed."""
        return self.package is None or find_spec(self.package) is not None

    def method(self) -> Method:
        """Makes a `Method` that raises errors of the library as RestoreError."""

        def restore(trial: Trial) -> Prediction:
            if self.needs_mask and trial.visible_damage is None:
                raise RestoreError(f"{self.name}: needs a mask of the damage")
            try:
                restored = self.run(trial)
            except Exception as error:  # other programs may raise anything
                raise RestoreError(f"{self.name}: {reason(error)}") from error
            if not np.isfinite(restored).all():
                raise RestoreError(f"{self.name}: returned NaN or infinite values")
            return Prediction(restored)

        return Method(self.name, "input" if self.identity else "baseline", self.about, restore)


def choose(task: str, names: Sequence[str] | None = None, *, masks: bool = True) -> tuple[list[Baseline], list[str]]:
    """Chooses the baselines of a task.

    Args:
        task: name of the task.
        names: of the baselines; None: all that are available.
        masks: whether the masks of the damage are known.

    Returns:
        The baselines, and a message for each that is left out.

    Raises:
        UsageError: a name is unknown, or that baseline is not installed or lacks its masks.
    """
    known = {baseline.name: baseline for baseline in BASELINES.get(task, ())}
    for name in names or ():
        if name not in known:
            raise unknown_name(f"baseline of {task}", name, known)
        if not known[name].available:
            raise UsageError(f"baseline {name} needs the package {known[name].package}: {_install(known[name])}")
        if known[name].needs_mask and not masks:
            raise UsageError(f"baseline {name} needs masks of the damage; give --masks")
    wanted = [known[name] for name in dict.fromkeys(known if names is None else names)]
    missing = [f"{b.name} left out: {b.package} is not installed ({_install(b)})" for b in wanted if not b.available]
    without_mask = [] if masks else [baseline for baseline in wanted if baseline.needs_mask]
    missing += [f"{baseline.name} left out: it needs masks of the damage (--masks)" for baseline in without_mask]
    return [baseline for baseline in wanted if baseline.available and baseline not in without_mask], missing


def _install(baseline: Baseline) -> str:
    return f"pip install {baseline.package}, or {install_hint('baselines')}"


def noise_level(trial: Trial) -> float:
    """Standard deviation of the noise on the 0-255 scale, at least `MIN_SIGMA`.

    The true one, or scikit-image's wavelet-based estimate for damage from files.
    """
    sigma = getattr(trial.params, "sigma", None)
    if sigma is None:
        from skimage.restoration import estimate_sigma

        sigma = 255.0 * estimate_sigma(to_float(trial.damage.image), channel_axis=-1, average_sigmas=True)
    return max(float(np.nan_to_num(sigma)), MIN_SIGMA)


def _non_local_means(trial: Trial) -> np.ndarray:
    sigma, image = noise_level(trial), to_dtype(to_float(trial.damage.image), np.uint8)
    if image.shape[-1] == 1:
        return np.asarray(cv2.fastNlMeansDenoising(image, None, NLM_LUMA * sigma, NLM_PATCH, NLM_SEARCH))[..., None]
    # OpenCV expects BGR; with RGB it would swap the weights of red and blue.
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
    bm3d = import_module("bm3d")  # optional, and without annotations
    image, sigma = to_float(trial.damage.image), noise_level(trial) / 255.0
    if image.shape[-1] == 1:
        return np.asarray(bm3d.bm3d(image[..., 0], sigma), np.float32)[..., None]
    return np.asarray(bm3d.bm3d_rgb(image, sigma), np.float32)


def _lanczos(trial: Trial) -> np.ndarray:
    return resize_pillow(to_float(trial.damage.image), trial.clean.shape[:2], KERNELS["lanczos"])


def _fill(trial: Trial, method: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    """Fills the true mask and keeps all other pixels.

    method: 8-bit picture (H,W,1 or 3), mask (H,W) bool -> filled picture, 8-bit or float.
    """
    image, mask = trial.damage.image, np.asarray(trial.visible_damage)
    restored = image.copy()
    if mask.any():
        filled = method(np.ascontiguousarray(to_dtype(to_float(image), np.uint8)), mask).reshape(image.shape)
        restored[mask] = to_dtype(to_float(filled[mask]), image.dtype)
    return restored


def _inpaint(image: np.ndarray, mask: np.ndarray, method: int) -> np.ndarray:
    return np.asarray(cv2.inpaint(image, mask.astype(np.uint8), RADIUS, method))


def _biharmonic(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    from skimage.restoration import inpaint_biharmonic

    return np.asarray(inpaint_biharmonic(image, mask, channel_axis=-1), np.float32)


@cache
def _colours() -> np.ndarray:
    """(256,3): RGB of each 8-bit level of luma by the table, with exactly that luma, white at 1."""
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
        return to_rgb(image)
    told = opaque(hints)
    chroma = spread_chroma(grey, chroma_of(to_float(hints[..., :3])), told)
    return to_dtype(in_gamut(grey, chroma.astype(np.float32)), image.dtype)


def spread_chroma(grey: np.ndarray, chroma: np.ndarray, told: np.ndarray) -> np.ndarray:
    """The linear system of Levin et al. 2004, over windows of 3x3 pixels, solved by scipy's sparse LU.

    Shape: (H,W) luma with white at 1, (H,W,2) of which only `told` (H,W) bool counts -> (H,W,2), float64.
    """
    from scipy.sparse import csr_matrix, eye_array
    from scipy.sparse.linalg import splu

    height, width = grey.shape
    number = np.arange(height * width).reshape(height, width)
    padded = np.pad(grey.astype(np.float64), 1, mode="edge")
    around = [padded[1 + y : 1 + y + height, 1 + x : 1 + x + width] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    spread = np.maximum(SHARE * np.var(around, axis=0), LEAST)
    rows, columns, weights = [], [], []
    for y, x in [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]:
        here = np.s_[max(0, -y) : height - max(0, y), max(0, -x) : width - max(0, x)]
        there = np.s_[max(0, y) : height - max(0, -y), max(0, x) : width - max(0, -x)]
        alike = np.exp(-np.square(grey[here] - grey[there]) / spread[here]) + FLOOR
        free = ~told[here]
        rows.append(number[here][free])
        columns.append(number[there][free])
        weights.append(alike[free])
    size = number.size
    row, column, weight = (np.concatenate(parts) for parts in (rows, columns, weights))
    total = np.bincount(row, weight, size)
    shares = csr_matrix((weight / total[row], (row, column)), shape=(size, size))
    known = np.where(told[..., None], chroma, 0).reshape(size, 2).astype(np.float64)
    return np.asarray(splu((eye_array(size) - shares).tocsc()).solve(known)).reshape(height, width, 2)


TELEA = Baseline(
    "telea",
    f"OpenCV inpaint, INPAINT_TELEA, radius {RADIUS}, true mask, for marks where opacity > {MIN_OPACITY} (Telea 2004)",
    partial(_fill, method=partial(_inpaint, method=cv2.INPAINT_TELEA)),
    needs_mask=True,
)

BASELINES: dict[str, tuple[Baseline, ...]] = {
    "denoise": (
        Baseline(
            "nl-means",
            f"OpenCV fastNlMeansDenoisingColored, true sigma, h = {NLM_LUMA} sigma, hColor = {NLM_COLOUR} sigma, patch "
            f"{NLM_PATCH}, search {NLM_SEARCH}, on the picture rounded to 8 bits (Buades et al. 2005)",
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
        Baseline(
            "bicubic", "torch bicubic interpolation, a = -0.5 (Keys 1981)", lambda trial: trial.identity, identity=True
        ),
        Baseline("lanczos", "Pillow LANCZOS, 3 lobes, in float", _lanczos),
    ),
    "inpaint": (
        TELEA,
        Baseline(
            "navier-stokes",
            f"OpenCV inpaint, INPAINT_NS, radius {RADIUS}, true mask (Bertalmio et al. 2001)",
            partial(_fill, method=partial(_inpaint, method=cv2.INPAINT_NS)),
            needs_mask=True,
        ),
        Baseline(
            "biharmonic",
            "scikit-image inpaint_biharmonic, true mask (Damelin and Hoang 2018)",
            partial(_fill, method=_biharmonic),
            needs_mask=True,
        ),
    ),
    "dewatermark": (TELEA,),
    "colorize": (
        Baseline("gray", "the gray picture", lambda trial: trial.identity, identity=True),
        Baseline(
            "table",
            "the mean CIELAB ab of each level of luma in the training pictures, clipped to the gamut at that luma",
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
