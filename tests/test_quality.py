"""The checks that read the code instead of running it: ruff, mypy --strict, import contracts, declared dependencies."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "types": ["mypy", "--strict"],
    "imports": ["lint-imports", "--no-logo", "--no-cache"],
}


def tool(name: str) -> str:
    """The tool's path in this environment; without it the test is skipped, in CI it fails."""
    path = shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None and not os.environ.get("CI"):
        pytest.skip(f"{name} is not installed: pip install -e '.[dev]'")
    assert path is not None, f"{name} is missing from the environment of the tests"
    return path


@pytest.mark.parametrize("check", CHECKS)
def test_the_code_passes(check: str) -> None:
    name, *arguments = CHECKS[check]
    result = subprocess.run([tool(name), *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout[-6000:]}\n{result.stderr[-2000:]}"


def imported_packages(source: str) -> set[str]:
    """First parts of all absolute imports of a module, at whatever depth they stand."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def test_every_imported_library_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [r for name, group in project["optional-dependencies"].items() if name != "dev" for r in group]
    declared = {canonical(re.split(r"[<>=!~\[; ]", r)[0]) for r in project["dependencies"] + extras}
    used = {p for f in (ROOT / "src").rglob("*.py") for p in imported_packages(f.read_text(encoding="utf-8"))}
    origins = packages_distributions()
    undeclared = {
        package
        for package in used - set(sys.stdlib_module_names) - {"poise"}
        if not declared & {canonical(d) for d in origins.get(package, [package])}
    }
    assert undeclared == set()


def canonical(distribution: str) -> str:
    """A distribution's name as the packaging rules normalise it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()
