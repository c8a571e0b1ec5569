"""The example pictures: free, accounted for, small, and reproducible from what lies beside them."""

import hashlib
import re
import runpy
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
MEDIA = sorted(p.name for p in EXAMPLES.iterdir() if p.suffix not in {".py", ".md", ".json"} and p.is_file())
ATTRIBUTION = (EXAMPLES / "ATTRIBUTION.md").read_text(encoding="utf-8")


def test_every_picture_is_in_the_attribution_table() -> None:
    table = re.findall(r"^\| `([^`]+)` \|", ATTRIBUTION, flags=re.MULTILINE)
    assert sorted(table) == MEDIA


@pytest.mark.parametrize("name", MEDIA)
def test_the_files_are_the_ones_the_attribution_speaks_of(name: str) -> None:
    total = hashlib.sha256((EXAMPLES / name).read_bytes()).hexdigest()
    assert f"{total}  {name}" in ATTRIBUTION.splitlines()


def test_the_folder_stays_small() -> None:
    assert sum((EXAMPLES / name).stat().st_size for name in MEDIA) < 3_000_000


def test_three_people_is_what_its_script_makes() -> None:
    made = runpy.run_path(str(EXAMPLES / "make_three_people.py"))["compose"]()
    with Image.open(EXAMPLES / "three_people.jpg") as shipped:
        assert shipped.size == made.size
        difference = np.abs(np.asarray(shipped, np.int16) - np.asarray(made, np.int16))
    assert difference.mean() < 4.0  # JPEG noise; a shift of one pixel gives 7.6


def test_the_clip_pans_across_three_people() -> None:
    with Image.open(EXAMPLES / "three_people.jpg") as picture:
        whole = np.asarray(picture.convert("RGB"), np.int16)
    clip = cv2.VideoCapture(str(EXAMPLES / "pan.mp4"))
    frames = [frame for good, frame in iter(clip.read, (False, None)) if good]
    clip.release()
    assert len(frames) == 100
    height, width = frames[0].shape[:2]
    for index, left in ((0, 0), (50, whole.shape[1] - width)):
        shown = frames[index][..., ::-1].astype(np.int16)
        assert np.abs(shown - whole[:height, left : left + width]).mean() < 12.0
