"""The documentation: every command that it shows is one that the command line takes, every link leads somewhere."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from conftest import ROOT

from restore.cli.app import app

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("[sw]*/README.md")])
COMMAND = typer.main.get_command(app)


def shown(text: str) -> Iterator[str]:
    """The commands in blocks of code, in cells of tables, and in running text where they have arguments."""
    blocks = re.findall(r"^(?: {4}|  )(.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    for line in blocks:
        for part in re.split(r"\\?\||&&| #|>", line):
            if part.strip().startswith("restore ") and "..." not in part and len(part.split()) > 2:
                yield part.strip()


def takes(words: list[str]) -> None:
    """Parses as the command line does, and runs nothing. Raises what it raises."""
    command, name = COMMAND, "restore"
    while getattr(command, "commands", None):
        name, words = words[0], words[1:]
        assert name in command.commands, name
        command = command.commands[name]
    command.make_context(name, list(words))


def documented(text: str) -> bool:
    """Whether a command is meant to be typed as it stands: without names in capitals that stand for something."""
    return not re.search(r"(?<![\w$/.])(TASK|FOLDER|FILE|VARIANT|DIR|INPUT|VAL|WIDTHxHEIGHT|N)(?![\w.])", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_shown_is_taken(page):
    for line in filter(documented, shown(page.read_text(encoding="utf-8"))):
        words = shlex.split(line)[1:]
        try:
            takes(words)
        except typer.Exit as done:  # --help
            assert done.exit_code == 0
        except Exception as error:
            pytest.fail(f"{line}: {error}")


def test_examples_of_the_help_are_taken():
    def check(command) -> int:
        for name in (inner := getattr(command, "commands", {})):
            check(inner[name])
        for line in (command.epilog or "").splitlines():
            takes(shlex.split(line.partition("#")[0])[1:])
        return len(inner)

    assert check(COMMAND) >= 14


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    generated = {"changelog.md", "contributing.md"}  # by docs/hooks.py
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http") and Path(target).parts[0] not in generated:
            assert (page.parent / target).exists(), f"{page}: {target}"
