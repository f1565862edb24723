"""What a person may ask of the denoiser, of the noise it is trained against, and of the noise it is measured by."""

from __future__ import annotations

from dataclasses import dataclass

from restore.tasks.options import Options, option

NOISES = ("white", "camera", "grain", "jpeg", "photo")


@dataclass(frozen=True)
class DenoiseOptions(Options):
    """What a person knows of the noise."""

    sigma: float | None = option(
        None,
        "How strong the noise is, as a standard deviation of 255, where you know it; otherwise it is judged by the "
        "picture. Where too much or too little is taken off, try other levels, or --strength from 0 to 2.",
        min=0.0,
        max=255.0,
    )


@dataclass(frozen=True)
class NoiseOptions(Options):
    """The kind of noise, and its level."""

    noise: str = option(
        "white",
        "What damages: white Gaussian noise, a camera's noise, film grain, JPEG compression, or photo: any of these.",
        choices=NOISES,
    )
    sigma: tuple[float, float] = option(
        (0.0, 55.0),
        "Level of white noise on the 0-255 scale: one number, or the lowest and highest.",
        metavar="LOW[,HIGH]",
    )


@dataclass(frozen=True)
class NoiseTraining(NoiseOptions):
    """The noise that a denoiser is trained against."""

    noise: str = option(
        "photo",
        "What to learn: white Gaussian noise, a camera's noise, film grain, JPEG compression, or photo: all of these.",
        choices=NOISES,
    )
    clip: float = option(
        0.25, "Share of patches of white noise that is clipped and rounded, as files hold it.", min=0.0, max=1.0
    )
    gray: float = option(0.06, "Share of patches turned gray, with equal noise in all channels.", min=0.0, max=1.0)
    vivid: float = option(0.1, "Share of patches with stronger or exchanged colours.", min=0.0, max=1.0)
    told: float = option(
        0.4, "Share of patches whose noise level the network is told, if it has planes for it.", min=0.0, max=1.0
    )


@dataclass(frozen=True)
class NoiseTrial(NoiseOptions):
    """The noise that a denoiser is measured against."""

    clipped: bool = option(False, "Clip and round white noise, as files hold it; papers do not.")
