"""The guide to augmentation: every one has its picture, every field exists, and its command runs."""

import re
import shlex
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from poise.cli.main import app
from poise.data.augmentations import CANVAS, CROPS, NOTHING
from poise.data.config import DataConfig

ROOT = Path(__file__).resolve().parents[1]
GUIDE = (ROOT / "docs/guides/augmentation.md").read_text(encoding="utf-8")
PICTURES = ROOT / "docs/images/augment"


def test_every_augmentation_has_a_picture():
    shown = re.findall(r"!\[(\w+)\]\(\.\./images/augment/(\w+)\.jpg\)", GUIDE)
    assert {a for a, b in shown if a == b} == {NOTHING, *CANVAS, *CROPS} - {"upright"}
    files = sorted(PICTURES.iterdir())
    assert {f.name for f in files} == {f"{name}.jpg" for name, _ in shown}
    assert sum(f.stat().st_size for f in files) < 1_500_000
    for file in files:
        with Image.open(file) as image:
            assert image.format == "JPEG"


def test_fields_of_the_table_exist():
    table = "\n".join(line for line in GUIDE.splitlines() if line.startswith("| `"))
    fields = set(re.findall(r"`((?:augment|crop)\.\w+)`", table))
    assert len(fields) > 25
    config = DataConfig.parse({"sources": [{"annotations": "a", "images": "b"}]})
    assert [f for f in fields if not hasattr(getattr(config, f.split(".")[0]), f.split(".")[1])] == []


def test_the_command_draws_the_sheet(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    command = re.search(r"^poise (data show .*)$", GUIDE, flags=re.MULTILINE).group(1)
    result = CliRunner().invoke(app, shlex.split(command))
    assert (result.exit_code, result.stdout) == (0, "rotation.jpg\n"), result.output
    with Image.open("rotation.jpg") as drawn, Image.open(PICTURES / "rotation.jpg") as stored:
        assert drawn.size == stored.size
