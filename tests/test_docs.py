"""The documents say what the code does: names exist, values are right, links lead somewhere, snippets work."""

import ast
import importlib
import json
import re
import shlex
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from poise.cli.main import app
from poise.data.crop_config import CropConfig, crop_mmpose, crop_official, crop_official_mpii
from poise.models import PRESETS
from poise.models.directpose import DirectPoseConfig
from poise.models.rsn import RSNConfig
from poise.models.smpr import SMPRConfig
from poise.settings import Settings
from poise.train.ablation import make_plan
from poise.train.config import RunConfig
from poise.train.recipes import RECIPES, recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*.md")])
PAPERS = {
    name: (ROOT / f"docs/papers/{name.lower()}.md").read_text(encoding="utf-8")
    for name in ("DirectPose", "SMPR", "RSN")
}
CONFIGS: dict[str, type[Settings]] = {"DirectPose": DirectPoseConfig, "SMPR": SMPRConfig, "RSN": RSNConfig}
PRESETS_OF_THE_TABLE = {
    "DirectPose": ("directpose_r50", "directpose_r50_gluoncv"), "SMPR": ("smpr_r50", "smpr_mobilenetv2"),
    "RSN": ("rsn18", "rsn18_mmpose"),
}  # fmt: skip
SWITCH = re.compile(r"^\| `([\w.]+)` \|.*\| \**`([^`]+)`\** \| \**`([^`]+)`\** \|$", re.MULTILINE)
SWITCHES = {
    (paper, name): values
    for paper, text in PAPERS.items()
    for name, *values in SWITCH.findall(text.partition("<!-- switches -->")[2])
}


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def fences(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def value_of(settings: Any, path: str) -> Any:
    """The JSON value of a dotted field; ``KeyError`` if there is no such field."""
    value = settings.model_dump(mode="json")
    for part in path.split("."):
        value = value[part]
    return value


@pytest.mark.parametrize(("paper", "path"), SWITCHES)
def test_switches_have_the_values_of_the_presets(paper: str, path: str) -> None:
    for preset, text in zip(PRESETS_OF_THE_TABLE[paper], SWITCHES[paper, path], strict=True):
        assert value_of(PRESETS[preset](), path) == json.loads(text)


@pytest.mark.parametrize("paper", PAPERS)
def test_every_switch_is_in_the_table(paper: str) -> None:
    told = {path.partition(".")[0] for name, path in SWITCHES if name == paper}
    assert told | {"system"} == set(CONFIGS[paper].model_fields)


@pytest.mark.parametrize("paper", PAPERS)
def test_code_that_answers_a_claim_exists(paper: str) -> None:
    source = "\n".join(f.name + "\n" + f.read_text(encoding="utf-8") for f in (ROOT / "src").rglob("*.py"))
    table = PAPERS[paper].partition("## From claim to code")[2].partition("\n## ")[0]
    cells = [row.rstrip(" |").rpartition("|")[2] for row in table.splitlines() if row.startswith("| ")][1:]
    names = [name.split(" = ")[0] for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    assert len(names) >= len(cells)
    assert [n for n in names if not defined(n, source)] == []


def defined(name: str, source: str) -> bool:
    """Whether the text of all modules defines a function, class, field or file of that name."""
    last = name if name.endswith(".py") else name.rpartition(".")[2]
    return re.search(rf"(?:def|class) {last}\b|^ +{last}: |^{re.escape(last)}$", source, re.MULTILINE) is not None


def test_switches_between_smprs_paper_and_code_exist() -> None:
    table = PAPERS["SMPR"].partition("## 11. Where paper and code differ")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| ")][1:]
    run = recipe("smpr_r50")
    told = [name for row in rows for name in re.findall(r"`([\w.]+)`", row[2])]
    missing = [n for n in told if n not in RECIPES and not any(_has(part, n) for part in (run.model, run))]
    assert missing == []
    assert [row[0] for row in rows if "`" not in row[2] and not row[2].startswith("none")] == []
    assert len(rows) >= 14


def _has(settings: Settings, path: str) -> bool:
    try:
        value_of(settings, path)
    except KeyError:
        return False
    return True


def test_the_table_of_rsns_crops_has_the_values_of_the_profiles() -> None:
    table = PAPERS["RSN"].partition("<!-- crops -->")[2].partition("\n\n")[0]
    rows = [[cell.strip("` ") for cell in line.strip("|").split(" | ")] for line in table.splitlines() if "| `" in line]
    profiles = [crop_official(), crop_official_mpii(), crop_mmpose(), CropConfig()]
    for name, _, *values in rows[1:]:
        assert [value_of(profile, name) for profile in profiles] == [json.loads(v) for v in values], name
    below = set(re.findall(r"`(\w+)`", PAPERS["RSN"].partition("<!-- crops -->")[2].partition("\n## ")[0]))
    assert set(CropConfig.model_fields) <= below


@pytest.mark.parametrize("paper", PAPERS)
def test_sections_that_docstrings_cite_exist(paper: str) -> None:
    sections = set(re.findall(r"^## (\d+)\. ", PAPERS[paper], flags=re.MULTILINE))
    citation = re.compile(rf"{paper}\s+spec\s+(\d+(?:\.\d+)?(?:,\s*\d+)*)")
    cited = {
        number
        for file in (ROOT / "src").rglob("*.py")
        for group in citation.findall(file.read_text(encoding="utf-8"))
        for number in re.findall(r"(?<![\d.])\d+", group)
    }
    assert cited
    assert cited <= sections


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_relative_links_lead_to_files(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    local = [t.partition("#")[0] for t in targets if "://" not in t and not t.startswith("#")]
    assert [t for t in local if not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", [p for p in PAGES if fences(p, "python")], ids=page_name)
def test_python_snippets_compile_and_import_what_exists(page: Path) -> None:
    for source in fences(page, "python"):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "poise":
                module = importlib.import_module(node.module or "")
                found = [hasattr(module, a.name) or find_spec(f"{node.module}.{a.name}") for a in node.names]
                assert all(found), ast.unparse(node)


@pytest.mark.parametrize("page", [p for p in PAGES if fences(p, "yaml")], ids=page_name)
def test_yaml_snippets_are_settings_of_a_run(page: Path) -> None:
    for source in fences(page, "yaml"):
        data = yaml.safe_load(source)
        assert RunConfig.parse(data).model_dump()["data"]["sources"]


def test_the_training_guide_knows_every_recipe() -> None:
    guide = (ROOT / "docs/guides/train.md").read_text(encoding="utf-8")
    recipes = guide.partition("## Recipes")[2].partition("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", recipes, flags=re.MULTILINE) == list(RECIPES)


def test_settings_changed_on_command_lines_exist() -> None:
    lines = [line for page in PAGES for block in fences(page, "bash") for line in block.splitlines() if "--set" in line]
    assert lines
    for line in lines:
        words = shlex.split(line)
        changes = [after for before, after in pairwise(words) if before == "--set"]
        if words[1] == "ablation":
            like = recipe(words[words.index("--like") + 1])
            assert make_plan(words[2], like=like, changes=changes) != make_plan(words[2], like=like)
            continue
        if words[1:3] == ["benchmark", "data"]:
            continue
        name = words[words.index("train") + 1]
        assert recipe(name).override(changes) != recipe(name)


@pytest.mark.parametrize("page", [p for p in PAGES if fences(p, "bash")], ids=page_name)
def test_command_lines_use_verbs_and_options_that_exist(page: Path) -> None:
    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    text = "\n".join(fences(page, "bash")).replace("\\\n", " ")
    for line in re.findall(r"(?:^|&& |bin/)poise (.*?)(?: && |$)", text, flags=re.MULTILINE):
        verb, *words = shlex.split(line, comments=True)
        command = verbs[verb]
        while hasattr(command, "commands"):
            verb, *words = words
            command = command.commands[verb]
        known = {option for parameter in command.params for option in parameter.opts + parameter.secondary_opts}
        assert {w.partition("=")[0] for w in words if w.startswith("-") and not w[1:2].isdigit()} <= known | {"--help"}


def test_ci_runs_the_second_command_of_the_readme() -> None:
    commands = [line for block in fences(ROOT / "README.md", "bash")[:2] for line in block.strip().splitlines()]
    assert len(commands) == 2
    assert commands[1] in (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
