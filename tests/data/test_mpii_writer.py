"""MPII's form and back: what it holds is kept, what it cannot hold is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.data.convert import convert_dataset
from poise.data.formats import read_dataset
from poise.data.mpii import read_mpii
from poise.data.mpii_writer import mpii_document, write_mpii
from poise.data.records import PoseDataset, Record
from poise.data.writers import write_coco
from poise.skeletons import COCO17, CROWDPOSE14, MPII16, Skeleton


def dataset(folder: Path, skeleton: Skeleton = MPII16, occluded: bool = False) -> PoseDataset:
    """Two people with square boxes and a square region in one picture, nobody in another."""
    rng = np.random.default_rng(5)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (90, 120, 3), np.uint8)).save(folder / f"{name}.png")
    keypoints = rng.uniform(5, 80, (2, len(skeleton), 3)).round(2)
    keypoints[..., 2] = 2
    keypoints[0, 3] = 0
    keypoints[1, 4, 2] = 1 if occluded else 2
    boxes = np.array([[10.0, 5, 70, 65], [40, 20, 100, 80]])
    region = np.array([[60.0, 10, 100, 50]])
    full = Record(folder / "a.png", 1, (90, 120), keypoints, boxes, np.array([900.0, 800]), region)
    return PoseDataset("set", skeleton, (full, Record.without_people(folder / "b.png", 2, (90, 120), len(skeleton))))


def test_mpii_and_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = dataset(tmp_path / "pictures", occluded=True)
    root = write_mpii(data, tmp_path / "mpii.json")
    assert root == tmp_path / "pictures"
    assert "1 occluded joints of 'set'" in caplog.text
    assert "1 pictures of 'set' without people" in caplog.text
    assert "2 people of 'set' are written without head boxes" in caplog.text
    (back,) = read_mpii(tmp_path / "mpii.json", root)
    expected = data[0]
    np.testing.assert_allclose(back.keypoints[..., :2], expected.keypoints[..., :2], atol=1e-3)
    assert (back.keypoints[..., 2] == 2 * (expected.keypoints[..., 2] > 0)).all()
    np.testing.assert_allclose(back.boxes, expected.boxes, atol=1e-2)
    np.testing.assert_allclose(back.ignore, expected.ignore, atol=1e-2)


def test_entries_count_pixels_from_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first, second, region = mpii_document(dataset(tmp_path))
    assert (first["image"], first["scale"], first["center"]) == ("a.png", 0.3, [41, 36 - 15 * 0.3])
    assert first["joints_vis"] == [1, 1, 1, 0, *[1] * 12]
    assert first["joints"][3] == [0, 0]
    assert first["joints"][0][0] == pytest.approx(dataset(tmp_path)[0].keypoints[0, 0, 0] + 1, abs=1e-3)
    assert sum(second["joints_vis"]) == 16
    assert sum(region["joints_vis"]) == 0
    caplog.clear()
    assert mpii_document(PoseDataset("nothing", MPII16, ())) == []
    assert not caplog.records


def test_convert_to_every_form_that_holds_the_keypoints(tmp_path: Path) -> None:
    for skeleton, fitting in ((MPII16, "mpii"), (CROWDPOSE14, "crowdpose"), (COCO17, "coco")):
        folder = tmp_path / skeleton.name
        write_coco(dataset(folder / "pictures", skeleton), folder / "truth.json")
        options: dict[str, Any] = {"images": folder / "pictures"}
        done = convert_dataset(folder / "truth.json", folder / "out.json", fitting, **options)
        back = read_dataset(done.path, done.images, fitting)
        assert back.person_count == 2
        assert back.skeleton.keypoints == skeleton.keypoints
        for other in {"mpii", "crowdpose"} - {fitting}:
            with pytest.raises(ValueError, match=f"form holds the 1[46] .* but the data set has {len(skeleton)}"):
                convert_dataset(folder / "truth.json", folder / "no.json", other, **options)
        assert not (folder / "no.json").exists()
    assert isinstance(json.loads((tmp_path / "mpii16/out.json").read_text()), list)
