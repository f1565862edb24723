"""`restore evaluate TASK FOLDER` and `restore compare A B`."""

from __future__ import annotations

import logging
import os
import shlex
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from restore.cli.flags import ComputeFlags, add_command, argument, group
from restore.cli.reporting import say
from restore.errors import RestoreError, UsageError
from restore.tasks import TASKS, Options, TaskSpec
from restore.tasks.spec import option

if TYPE_CHECKING:
    from restore.evaluation.results import Results
    from restore.tasks.base import Task


@dataclass(frozen=True)
class EvaluateFlags:
    PANEL = "Measuring"

    folder: Path = argument("A folder of clean pictures, searched through and through, or one picture.", "FOLDER")
    corrupted: Path | None = option(
        None, "Damaged pictures by the same names, instead of damage made here.", metavar="FOLDER"
    )
    masks: Path | None = option(None, "Where those are damaged: white is lost, by the same names.", metavar="FOLDER")
    model: list[str] | None = option(
        None,
        "A shipped variant, `default`, or a weights file; may be repeated [default: the task's].",
        flags=("-m",),
        metavar="VARIANT|FILE",
    )
    baselines: str | None = option(None, "Only these methods beside the model.", metavar="NAME[,NAME...]")
    no_baselines: bool = option(False, "Leave out the methods that need no network.")
    limit: int | None = option(None, "Only the first pictures, by path.", min=1)
    seed: int = option(0, "Seed of the damage; a picture's pixels and the seed fix it.", min=0)
    json: bool = option(False, "Print JSON instead of the table, with every picture's scores.")
    csv: Path | None = option(None, "Also write every picture's scores to this file.", metavar="FILE.csv")
    report: Path | None = option(None, "Also write a page with table, plots and pictures.", metavar="FILE.html")
    overwrite: bool = option(False, "Replace outputs that exist.")
    tta: bool = option(
        False,
        "Average over the eight symmetries (colorize: two): a little better, as many times slower.",
        flags=("-x",),
    )
    quiet: bool = option(False, "Print results and failures only.", flags=("-q",))


@dataclass(frozen=True)
class CompareFlags:
    before: Path = argument("The picture before, or a folder of them.", "A")
    after: Path = argument(
        "The picture after, as large as A or several times larger or smaller, or a folder of them by the same names.",
        "B",
    )
    output: Path | None = option(
        None,
        "A picture of both side by side, or a page (.html) with sliders "
        "[default: B.compared.png, of folders B.compared.html].",
        flags=("-o",),
        metavar="FILE",
    )
    labels: str | None = option(
        None, "What the sides are called [default: the names of files or folders].", metavar="LEFT,RIGHT"
    )
    limit: int = option(50, "Pairs of two folders to show, at most.", min=1)
    overwrite: bool = option(False, "Replace an output that exists.")

    def named(self, left: str, right: str) -> tuple[str, str]:
        """The labels of the two sides. Raises UsageError where --labels gives another number of them."""
        if self.labels is None:
            return left, right
        first, comma, second = self.labels.partition(",")
        if not comma or "," in second:
            raise UsageError(f"--labels {self.labels}: write two, such as before,after")
        return first.strip(), second.strip()


def add(app: typer.Typer) -> None:
    """Adds `evaluate`, with a command for every task, and `compare`."""
    about = "Measure weights on your own pictures, beside what else you could use."
    evaluating = group(about)
    for spec in TASKS.values():
        body = _body(spec)
        body.__doc__ = f"Damage clean pictures, restore them with {spec.name} and its rivals, and score the results."
        examples = (
            f"restore evaluate {spec.name} my-pictures/ --report report.html",
            f"restore evaluate {spec.name} my-pictures/ -m default -m mine.safetensors --limit 20 --csv scores.csv",
        )
        kinds = (EvaluateFlags, ComputeFlags, spec.trial_options, spec.measured_options)
        panels = {spec.measured_options: "Effect", spec.trial_options: "Damage"}
        add_command(evaluating, spec.name, body, *kinds, examples=examples, panels=panels)
    app.add_typer(evaluating, name="evaluate")
    examples = (
        "restore compare photo.jpg photo.denoised.jpg -o both.html",
        "restore compare scans/ scans.denoised/ -o all.html --labels before,after",
    )
    add_command(app, "compare", _compare, examples=examples)


def _body(spec: TaskSpec) -> Any:
    def body(flags: EvaluateFlags, compute: ComputeFlags, damage: Options, options: Options) -> None:
        from restore.evaluation.page import check_output, write_text

        for path, suffixes in ((flags.csv, (".csv",)), (flags.report, (".html", ".htm"))):
            if path is not None:
                check_output(path, flags.overwrite, suffixes)
        if flags.no_baselines and flags.baselines:
            raise UsageError("--baselines and --no-baselines contradict each other")

        from tqdm import tqdm

        from restore.evaluation.evaluate import evaluate
        from restore.evaluation.results import table, to_csv, to_json
        from restore.evaluation.trials import find_entries
        from restore.tasks.base import load_task

        logging.basicConfig(format="restore: %(message)s", stream=sys.stderr)
        entries = find_entries(flags.folder, flags.corrupted, flags.masks, flags.limit)
        task = load_task(spec.name)
        _note_idle(task, damage, flags)
        results = _prepared(task, damage, options, flags, compute)
        hidden = True if flags.quiet or flags.json else None  # None: only on a terminal
        with tqdm(total=len(entries), disable=hidden, unit="picture", dynamic_ncols=True) as bar:

            def begun(case: str, method: str) -> None:
                bar.set_postfix_str(f"{case}: {method}", refresh=True)  # a slow baseline takes minutes for a picture

            for picture in evaluate(entries, task, damage, results.methods, flags.seed, begun):
                results.add(picture)
                bar.update()
        print(to_json(results) if flags.json else table(results), flush=True)
        if flags.csv:
            write_text(flags.csv, to_csv(results))
        if flags.report and results.rows:
            from restore.evaluation.report import report

            write_text(flags.report, report(results, entries, task, damage))
        for reason in results.failed.values():
            say(f"failed: {reason}")
        if results.failed:
            raise typer.Exit(1)

    return body


def _prepared(task: Task, damage: Options, options: Options, flags: EvaluateFlags, compute: ComputeFlags) -> Results:
    """Everyone who takes part, before the first picture is read. Raises UsageError for a call that cannot be."""
    from restore import weights
    from restore.devices import describe, pick_device, pick_precision
    from restore.evaluation.baselines import choose
    from restore.evaluation.evaluate import Model, all_methods
    from restore.evaluation.results import Results

    spec = task.spec
    names = None if flags.baselines is None else [name.strip() for name in flags.baselines.split(",")]
    known = not flags.corrupted or flags.masks is not None  # where the damage is
    chosen, missing = ([], []) if flags.no_baselines else choose(spec.name, names, masks=known)
    device = pick_device(compute.device)
    dtype = pick_precision(compute.precision, device)
    paths = [weights.find(spec.name, name) for name in flags.model or (None,)]
    given = spec.options(**asdict(options))
    models = [Model(path, task, device, dtype, given, tile=compute.tile, tta=flags.tta) for path in paths]
    if not flags.quiet and not flags.json:
        say(f"{spec.name} on {describe(device, dtype)}")
    if not flags.corrupted:
        for case in task.cases(damage):
            for model in models:
                model.check(case.pair.head.scale)
    methods = all_methods(models, [baseline.method() for baseline in chosen])
    return Results(spec.name, flags.seed, _typed(spec, flags, compute, damage, options), methods, notes=missing)


def _note_idle(task: Task, damage: Options, flags: EvaluateFlags) -> None:
    """Says so where an option of the damage was given and changes nothing: the cases of a task are fixed."""
    default = type(damage)()
    given = list(damage.chosen)
    if given and flags.corrupted:
        raise UsageError(f"--{given[0]} describes damage made here, and --corrupted brings its own; give one")

    def cases(options: Options) -> list[str]:
        return [f"{case.label} {case.pair.corruption!r}" for case in task.cases(options)]

    for name in given:
        if cases(replace(damage, **{name: getattr(default, name)})) == cases(damage):
            labels = ", ".join(case.label for case in task.cases(damage))
            say(f"--{name} changes nothing here: {task.spec.name} is measured at {labels}")


def _typed(spec: TaskSpec, flags: EvaluateFlags, compute: ComputeFlags, *more: Options) -> str:
    """The command that gives these results again, without the places of files on this machine."""
    words = ["restore", "evaluate", spec.name, _shown(flags.folder)]
    given: list[EvaluateFlags | ComputeFlags | Options] = [flags, compute, *more]
    for options in given:
        for known in fields(options):
            value = getattr(options, known.name)
            if known.metadata.get("argument") or (value == known.default and known.name != "seed"):
                continue
            for one in value if isinstance(value, list) else [value]:
                words.append("--" + known.name.replace("_", "-"))
                if not isinstance(one, bool):
                    words.append(_shown(one))
    return shlex.join(words)


def _shown(value: Any) -> str:
    """A flag's value; a path as seen from here, or where that leads elsewhere, by its last name."""
    if isinstance(value, tuple):
        return ",".join(f"{number:g}" for number in value)
    text = str(value)
    if not isinstance(value, Path) and os.sep not in text:
        return text
    relative = os.path.relpath(text)
    return Path(text).resolve().name if relative.startswith("..") else relative


def _compare(flags: CompareFlags) -> None:
    """Show pictures together, before and after: side by side, or on a page with sliders."""
    for path in (flags.before, flags.after):
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder; check the path")
    folders = flags.before.is_dir() and flags.after.is_dir()
    if not folders and (flags.before.is_dir() or flags.after.is_dir()):
        raise UsageError(f"{flags.before} and {flags.after}: give two pictures, or two folders")
    from restore.evaluation.compare import find_pairs, read_pair, side_by_side, slider_page
    from restore.evaluation.page import check_output, write_text
    from restore.images import WRITABLE, write_image

    beside = flags.after.with_name(f"{flags.after.stem}.compared.png")
    output = flags.output or (Path(f"{flags.after.absolute().name}.compared.html") if folders else beside)
    html = output.suffix.lower() in (".html", ".htm")
    if folders and not html:
        raise UsageError(f"{output}: two folders are compared on a page; end it in .html")
    if output.exists() and any(output.samefile(path) for path in (flags.before, flags.after)):
        raise UsageError(f"{output}: is an input, and inputs are never written over; give another name with -o")
    check_output(output, flags.overwrite, (".html", ".htm", *WRITABLE))
    labels = flags.named(flags.before.absolute().name, flags.after.absolute().name)
    if not folders:
        first, second = read_pair(flags.before, flags.after)
        if html:
            write_text(output, slider_page([("", first, second)], labels))
        else:
            write_image(side_by_side(first, second, labels), output, overwrite=flags.overwrite)
        say(f"{output}: written")
        return
    pairs, alone = find_pairs(flags.before, flags.after)
    if alone:
        say(f"left out {len(alone)} without a counterpart of the same name, such as {alone[0]}")
    if len(pairs) > flags.limit:
        say(f"the first {flags.limit} of {len(pairs)} pairs; --limit says how many")
    shown, failed = [], 0
    for before, after in pairs[: flags.limit]:
        try:
            shown.append((before.relative_to(flags.before).as_posix(), *read_pair(before, after)))
        except RestoreError as error:
            failed += 1
            say(f"failed: {error}")
    if shown:
        write_text(output, slider_page(shown, labels))
        say(f"{output}: {len(shown)} pairs written")
    if failed:
        raise typer.Exit(1)
