"""What mkdocs adds to the pages here: the reference of every command, the gallery's pictures, files of the root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.structure.files import File, Files

from restore.cli.app import app

ROOT = Path(__file__).parents[1]
WIDTH = 100  # of the help, in characters


def on_files(files: Files, config: Any) -> Files:
    """Adds generated pages, and pictures from outside of this folder."""
    pages = {
        "reference/commands.md": commands(),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for path in sorted((ROOT / "samples" / "pictures").glob("*.png")):
        files.append(File.generated(config, f"pictures/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Shows as code what links to files that are not part of the site, such as results of benchmarks."""
    return re.sub(r"\[([^\]]+)\]\((?:\.\./)+(?:benchmarks|weights|samples)/[^)]*\)", r"`\1`", markdown)


def commands() -> str:
    """The help of every command, as a page."""
    text = ["# Commands", "What `--help` prints, command by command."]
    for words, help_text in each_command(typer.main.get_command(app), ["restore"]):
        text += [f"## `{' '.join(words)}`", f"```text\n{help_text}\n```"]
    return "\n\n".join(text) + "\n"


def each_command(command: Any, words: list[str]) -> Iterator[tuple[list[str], str]]:
    """The words and the help of a command and of all below it."""
    context = command.make_context(" ".join(words), [], resilient_parsing=True)
    context.terminal_width = context.max_content_width = WIDTH
    yield words, command.get_help(context)
    for name, inner in getattr(command, "commands", {}).items():
        yield from each_command(inner, [*words, name])
