"""The tasks by name: all that the command line needs to know before anything heavy is imported.

A new damage is an entry here and a file beside this one; flags, training, evaluation and the
contract tests follow from the entry.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from numbers import Real
from typing import Any

from restore.errors import UsageError, unknown_name

NOISES = ("white", "camera", "grain", "jpeg", "photo")


def option(default: Any, help: str, **flag: Any) -> Any:
    """A dataclass field that becomes a command-line flag.

    Args:
        default: MISSING where it has to be given.
        help: what `--help` says.
        flag: `flags` (a tuple of short forms), `alias` (an earlier name of a switch), `min`, `max`, `choices`,
            `metavar`, `argument` (True: a positional one).
    """
    return field(default=default, metadata={"help": help, **flag})


@dataclass(frozen=True)
class Options:
    """What a person may ask of a task when restoring; subclasses add fields made by `option`.

    Raises:
        UsageError: a value is not among the choices of its field, or out of its range.
    """

    def __post_init__(self) -> None:
        for known in fields(self):
            value = getattr(self, known.name)
            choices, least, most = (known.metadata.get(name) for name in ("choices", "min", "max"))
            if choices and value not in choices:
                raise UsageError(f"{known.name} must be one of {', '.join(map(str, choices))}; got {value}")
            if not (value is None or least is most is None or isinstance(value, Real)):
                raise UsageError(f"{known.name} must be a number; got {value!r}")
            # Negated, since NaN compares as neither.
            if value is not None and not ((least is None or value >= least) and (most is None or value <= most)):
                limits = f"starts at {least:g}" if most is None else f"goes from {least:g} to {most:g}"
                raise UsageError(f"{known.name} {limits}; got {value}")

    @property
    def chosen(self) -> dict[str, Any]:
        """What is not as by default, by its name."""
        plain, values = asdict(type(self)()), asdict(self)
        return {name: value for name, value in values.items() if value != plain[name]}


@dataclass(frozen=True)
class NoOptions(Options):
    """A task with nothing to choose."""


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


@dataclass(frozen=True)
class WeightsOptions(Options):
    """Which weights a task uses, and how strongly."""

    PANEL = "Network"

    model: str | None = option(
        None, "A shipped variant, or a weights file [default: the task's].", flags=("-m",), metavar="VARIANT|FILE"
    )
    strength: float = option(1.0, "How much of the effect, from 0 (none) to 1 (all).", min=0.0, max=1.0, panel="Effect")


@dataclass(frozen=True)
class AmplifiedWeights(WeightsOptions):
    """The same of a task that can do more than its network does by itself."""

    strength: float = option(
        1.0, "How much of the effect, from 0 (none) over 1 (by itself) to 2.", min=0.0, max=2.0, panel="Effect"
    )


@dataclass(frozen=True)
class ScaleOptions(Options):
    """By how much a picture is enlarged."""

    scale: int = option(2, "How many times larger each side becomes.", flags=("-s",), choices=(2, 3, 4))


def _shrinking(default: str) -> Any:
    about = (
        "How pictures were made small: bicubic as in papers, or photo: in several ways, soft, noisy or saved as JPEG."
    )
    return option(default, about, choices=("bicubic", "photo"))


@dataclass(frozen=True)
class DownsampleOptions(Options):
    """The scales that a super-resolver is trained for."""

    scales: tuple[int, ...] = option((2, 3, 4), "Scales to learn, with a head for each.", metavar="N[,N...]")
    shrinking: str = _shrinking("bicubic")


@dataclass(frozen=True)
class DownsampleTraining(DownsampleOptions):
    """What a super-resolver is trained for."""

    shrinking: str = _shrinking("photo")


@dataclass(frozen=True)
class MaskOptions(Options):
    """How a mask is taken."""

    grow: int = option(0, "Pixels by which the mask is dilated on every side before it is restored.", min=0)
    aggressive: bool = option(
        False,
        "Restore uncertain detections too: for pictures that are known to be damaged.",
        alias="--eager",
    )


@dataclass(frozen=True)
class ReencodedTraining(Options):
    """What pictures go through after they were damaged."""

    reencoded: float = option(
        0.5, "Share of patches resized and compressed after the damage, as pictures come.", min=0.0, max=1.0
    )
    rescaled: float = option(
        0.5, "Least factor by which these are resized; near 1, patches may be larger.", min=0.1, max=1.0
    )
    jpeg_quality: int = option(70, "Lowest quality at which these are compressed; up to 95.", min=1, max=95)


@dataclass(frozen=True)
class OcclusionOptions(Options):
    """What covers a picture."""

    bars: str = option(
        "any", "What covers: any solid thing, or a two-pixel bar as in lectures.", choices=("any", "lecture")
    )


@dataclass(frozen=True)
class OcclusionTraining(ReencodedTraining, OcclusionOptions):
    """What an inpainter is trained against."""

    prints: float = option(
        0.0, "Share of patches damaged as old prints are: scratches, dust, folds, tears, stains.", min=0.0, max=1.0
    )
    undamaged: float = option(
        0.0, "Share of patches without damage: photographs, documents, charts, signs, fences.", min=0.0, max=1.0
    )
    aged: float = option(0.0, "Share of patches gray, brown or faded, most of them grainy.", min=0.0, max=1.0)


@dataclass(frozen=True)
class WatermarkOptions(Options):
    """The marks that lie over a picture."""

    opacity: tuple[float, float] = option(
        (0.15, 0.8), "Opacity of the marks: one number, or the lowest and highest.", metavar="LOW[,HIGH]"
    )
    logo: str | None = option(None, "Folder of your own logos, PNG with transparency.", metavar="DIR")


@dataclass(frozen=True)
class WatermarkTraining(ReencodedTraining, WatermarkOptions):
    """The marks that a watermark remover is trained against."""

    unmarked: float = option(
        0.15, "Share of patches without a mark: clean pictures are to be left alone.", min=0.0, max=1.0
    )


@dataclass(frozen=True)
class ColorizeOptions(Options):
    """Which pictures are coloured, and how strongly."""

    force: bool = option(False, "Colour pictures anew that have colours already.")
    saturation: float = option(1.0, "Multiplies the strength of the colours; 0 leaves them gray.", min=0.0, max=2.0)
    reference: str | None = option(
        None, "A picture in colours, whose palette the colours are drawn to.", metavar="FILE"
    )
    temperature: float = option(
        0.9, "Of the colours that are likely: lower, and only the likeliest count.", min=0.05, max=2.0
    )


@dataclass(frozen=True)
class GrayOptions(Options):
    """What is left of the colours."""

    hints: int = option(0, "Dots of the true colours that are kept, as a person would give them.", min=0, max=1000)


@dataclass(frozen=True)
class ColorizeTraining(Options):
    """What a colorizer is trained on."""

    hints: tuple[int, int] = option(
        (1, 100), "Dots of the true colours that are given, lowest and highest number.", metavar="LOW,HIGH"
    )
    without: float = option(0.5, "Share of pictures without such dots.", min=0.0, max=1.0)
    encoder: str | None = option(
        None, "A pretrained encoder to start from: mobilenet_v2, efficientnet_lite0, or a file.", metavar="NAME|FILE"
    )


@dataclass(frozen=True)
class TaskSpec:
    """A task as the command line knows it, before anything heavy is imported.

    Args:
        name: of the command.
        help: of the command.
        suffix: for the names of restored files; may name options in braces.
        module: of the task itself, imported when it is needed.
        options: flags of restoring.
        weights: flags of its network.
        measured_options: those of them that `restore evaluate` takes.
        damage: flags of the corruption in `restore corrupt`.
        training_options, trial_options: the same and more, for `restore train` and `restore evaluate`.
        masks: whether it detects the damage, or takes a mask of it.
        hints: whether it takes hints of colours.
        examples: lines for the help.
    """

    name: str
    help: str
    suffix: str
    module: str
    options: type[Options] = NoOptions
    measured_options: type[Options] = NoOptions
    damage: type[Options] = NoOptions
    training_options: type[Options] = NoOptions
    trial_options: type[Options] = NoOptions
    weights: type[WeightsOptions] = WeightsOptions
    masks: bool = False
    hints: bool = False
    examples: tuple[str, ...] = ()

    @property
    def max_strength(self) -> float:
        """The largest `strength`."""
        return float(next(known for known in fields(self.weights) if known.name == "strength").metadata["max"])

    def file_suffix(self, options: Options) -> str:
        """`suffix` with the values of `options` put in: `x{scale}` becomes `x2`."""
        return self.suffix.format(**asdict(options))


TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(
            name="denoise",
            help="Remove noise, grain and JPEG blocks from photographs (-m gaussian: white noise, as papers have it).",
            suffix="denoised",
            module="restore.tasks.denoise",
            examples=(
                "restore denoise photo.jpg                            # photo.denoised.jpg beside it",
                "restore denoise scans/ clean/ -r                     # a folder, with its subfolders",
                "restore denoise night.jpg --sigma 20 --strength 1.2  # for noise that is known",
            ),
            options=DenoiseOptions,
            weights=AmplifiedWeights,
            measured_options=NoOptions,  # --sigma is the damage's
            damage=NoiseOptions,
            training_options=NoiseTraining,
            trial_options=NoiseTrial,
        ),
        TaskSpec(
            name="super-resolve",
            help="Enlarge photographs 2, 3 or 4 times (-m bicubic: clean pictures, as papers shrink them).",
            suffix="x{scale}",
            module="restore.tasks.super_resolve",
            examples=(
                "restore super-resolve logo.png -s 4            # logo.x4.png, four times as large",
                "restore super-resolve small/ large/ --ext png  # a folder",
            ),
            options=ScaleOptions,
            measured_options=NoOptions,  # every scale of the damage is
            damage=DownsampleOptions,
            training_options=DownsampleTraining,
            trial_options=DownsampleOptions,
        ),
        TaskSpec(
            name="inpaint",
            help="Find solid bars, strokes and text over a picture, or take a mask, and paint what they hide.",
            suffix="inpainted",
            module="restore.tasks.inpaint.task",
            masks=True,
            examples=(
                "restore inpaint photo.png                  # finds what covers it",
                "restore inpaint photo.png --mask hole.png  # is told: white is what to paint",
            ),
            options=MaskOptions,
            measured_options=MaskOptions,
            damage=OcclusionOptions,
            training_options=OcclusionTraining,
            trial_options=OcclusionOptions,
        ),
        TaskSpec(
            name="dewatermark",
            help="Find watermarks that shine through, and take them off.",
            suffix="dewatermarked",
            module="restore.tasks.dewatermark.task",
            masks=True,
            examples=(
                "restore dewatermark scans/ clean/ --dry-run       # says what would change",
                "restore dewatermark photo.jpg --save-mask masks/  # keeps what was found",
            ),
            options=MaskOptions,
            measured_options=MaskOptions,
            damage=WatermarkOptions,
            training_options=WatermarkTraining,
            trial_options=WatermarkOptions,
        ),
        TaskSpec(
            name="colorize",
            help="Give gray photographs plausible colours.",
            suffix="colorized",
            module="restore.tasks.colorize",
            examples=(
                "restore colorize old.jpg                   # old.colorized.jpg",
                "restore colorize old.jpg --hints dots.png  # with colours where you dot them",
            ),
            options=ColorizeOptions,
            measured_options=ColorizeOptions,
            hints=True,
            damage=GrayOptions,
            training_options=ColorizeTraining,
            trial_options=GrayOptions,
        ),
    )
}


def task_spec(name: str) -> TaskSpec:
    """The spec of a task.

    Raises:
        UsageError: unknown name; the message lists the known ones.
    """
    if name not in TASKS:
        raise unknown_name("task", name, TASKS)
    return TASKS[name]
