"""The packages: which may import which, what importing them must not load, how long a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import restore

PACKAGE = Path(restore.__file__).parent
LAYERS = [
    {"errors"},
    {"pixels", "utils"},
    {"colour"},
    {"images", "metrics", "models", "corruptions", "devices"},
    {"tasks"},
    {"weights"},
    {"inference", "training"},
    {"folders"},
    {"evaluation"},
    {"latent"},
    {"serve", "export"},
    {"cli"},
]
LEVEL = {package: level for level, packages in enumerate(LAYERS) for package in packages}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.stem in LEVEL)


def imports(path: Path) -> set[str]:
    """The modules of this package that a file imports anywhere, but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.startswith("restore.")}


def package_of(name: str) -> str:
    return name.split(".")[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_to_the_left(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for name in imports(path):
        other = package_of(name)
        if other in LEVEL:
            assert other == own or LEVEL[other] < LEVEL[own], f"{own} imports {name}"


def test_tasks_do_not_import_each_other():
    tasks = {spec.module for spec in restore.TASKS.values()}
    for path in (PACKAGE / "tasks").rglob("*.py"):
        assert not imports(path) & tasks, path


def test_no_circles():
    modules = {".".join(("restore", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in FILES}
    edges = {name: {i for i in imports(path) if i in modules} - {name} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' > '.join((*way, name))}"
        if name not in done:
            for other in edges[name]:
                visit(other, (*way, name))
            done.add(name)

    for name in modules:
        visit(name, ())
    assert done == set(modules)


def test_files_are_short():
    """Where a file grows longer than this, look for a second concept in it."""
    long = {
        str(p.relative_to(PACKAGE)): n for p in PACKAGE.rglob("*.py") if (n := len(p.read_text().splitlines())) > 600
    }
    assert not long


@pytest.mark.parametrize(
    ("code", "never"),
    [
        ("import restore", {"torch", "cv2", "numpy", "albumentations"}),
        ("import restore.tasks", {"torch", "cv2", "numpy", "albumentations"}),
        ("from restore.cli.app import run; run(['--help'])", {"torch", "cv2", "albumentations", "fastapi", "uvicorn"}),
        ("from restore.cli.app import run; run(['serve', '--help'])", {"torch", "cv2", "fastapi", "uvicorn"}),
        ("from restore.cli.app import run; run(['train', 'denoise', '--help'])", {"torch", "cv2", "albumentations"}),
        ("import restore.images", {"torch", "albumentations"}),
        ("import restore; restore.load", {"albumentations", "accelerate", "sklearn"}),
    ],
)
def test_what_stays_out(code, never):
    """Help is quick, and restoring needs none of what training needs."""
    script = f"{code}\nimport sys\nprint([name for name in {sorted(never)!r} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
