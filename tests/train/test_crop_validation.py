"""Validation of models that see one person at a time: a model that reads colours must get full marks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from poise.data.config import SourceConfig
from poise.data.loader import read_source
from poise.data.writers import write_yolo
from poise.settings import Settings
from poise.skeletons import COCO17, MPII16, Skeleton
from poise.train.validation import Validator
from poise.types import Poses, ViewSpec

SIDE = 320


class ColourConfig(Settings):
    view: ViewSpec = ViewSpec(kind="crop", size=(256, 256), mean=(0, 0, 0), std=(1, 1, 1), half_pixel=False)


class ColourReader(nn.Module):
    """Finds keypoint k where the picture has the k-th colour; ``shift`` moves what it finds, input px."""

    def __init__(self, skeleton: Skeleton, shift: float = 0.0) -> None:
        super().__init__()
        self.config, self.skeleton, self.shift = ColourConfig(), skeleton, shift
        self.view = self.config.view
        self.unused = nn.Parameter(torch.zeros(1))

    def heatmaps(self, images: Tensor) -> Tensor:
        levels = torch.tensor([colour(k)[0] / 255 for k in range(len(self.skeleton))])
        distance = (images[:, :1] - levels[:, None, None]).abs() + (1 - images[:, 2:]).clamp(min=0)
        return 1.0 * (distance < 0.02)

    def decode(self, outputs: Any, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        found = []
        for maps, (height, width) in zip(outputs.heatmaps[-1].numpy(), sizes, strict=True):
            centres = [np.argwhere(m > 0).mean(0)[::-1] + self.shift if m.any() else np.zeros(2) for m in maps]
            box = [[0, 0, width - 1, height - 1]]
            found.append(Poses(np.array(centres)[None], np.ones((1, len(maps))), np.array(box), [1.0], self.skeleton))
        return found

    def decode_heatmaps(self, heatmaps: Tensor) -> tuple[np.ndarray, np.ndarray]:
        centres = [
            [np.argwhere(m > 0).mean(0)[::-1] + self.shift if m.any() else np.zeros(2) for m in maps]
            for maps in heatmaps.cpu().numpy()
        ]
        return np.array(centres, np.float32), np.ones(heatmaps.shape[:2], np.float32)

    def pose_scores(self, keypoint_scores: np.ndarray) -> np.ndarray:
        return np.ones(len(keypoint_scores), np.float32)

    def loss(self, outputs: Any, persons: Any) -> dict[str, Tensor]:
        raise NotImplementedError

    def detect(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Poses]:
        raise NotImplementedError

    def suppress(self, poses: Poses) -> Poses:
        return poses


def colour(k: int) -> tuple[int, int, int]:
    return 14 * k, 0, 255


def paint(path: Path, skeleton: Skeleton, places: list[tuple[int, int]]) -> np.ndarray:
    """A picture with a grid of discs, one a keypoint, at each place; returns (N, K, 2) their centres."""
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    grid = np.array([(16 * (k % 4), 24 * (k // 4)) for k in range(len(skeleton))])
    points = np.array([grid + place for place in places])
    for person in points:
        for k, (x, y) in enumerate(person.tolist()):
            cv2.circle(image, (x, y), 4, colour(k), -1)
    cv2.imwrite(str(path), image[..., ::-1])
    return points.astype(float)


@pytest.fixture
def mpii(tmp_path: Path) -> SourceConfig:
    entries = []
    for number, places in enumerate(([(20, 20)], [(30, 150), (200, 100)])):
        for points in paint(tmp_path / f"{number}.png", MPII16, places):
            scale, centre = 0.5, points.mean(0)
            entries.append(
                {
                    "image": f"{number}.png",
                    "joints": (points + 1).tolist(),
                    "joints_vis": [1] * len(MPII16),
                    "center": [centre[0] + 1, centre[1] + 1 - 15 * scale],
                    "scale": scale,
                    "headbox": [centre[0] - 5, centre[1] - 5, centre[0] + 5, centre[1] + 5],
                }
            )
    (tmp_path / "valid.json").write_text(json.dumps(entries))
    return SourceConfig(annotations=str(tmp_path / "valid.json"), images=str(tmp_path), kind="mpii")


@pytest.fixture
def coco(tmp_path: Path) -> SourceConfig:
    images, people = [], []
    for number, places in enumerate(([(20, 20)], [(30, 150), (200, 100)], [])):
        paint_places = paint(tmp_path / f"{number}.png", COCO17, places)
        images.append({"id": number, "file_name": f"{number}.png", "width": SIDE, "height": SIDE})
        for points in paint_places:
            low, sides = points.min(0) - 10, np.ptp(points, axis=0) + 20
            triples = np.concatenate([points, np.full((len(COCO17), 1), 2)], 1)
            people.append(
                {
                    "id": len(people) + 1, "image_id": number, "category_id": 1, "iscrowd": 0,
                    "keypoints": triples.reshape(-1).tolist(), "num_keypoints": len(COCO17),
                    "bbox": [*low, *sides], "area": float(sides.prod()),
                }
            )  # fmt: skip
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints), "skeleton": []}
    (tmp_path / "val.json").write_text(json.dumps({"images": images, "annotations": people, "categories": [category]}))
    return SourceConfig(annotations=str(tmp_path / "val.json"), images=str(tmp_path))


def changed(source: SourceConfig, change: Callable[[dict[str, Any]], object]) -> SourceConfig:
    """The same data set, the content of its file changed."""
    path = Path(source.annotations)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return source


def measured(source: SourceConfig, skeleton: Skeleton, shift: float = 0.0) -> dict[str, float]:
    model: Any = ColourReader(skeleton, shift)
    return Validator(source, model)(model)


def test_metrics_are_known_beforehand(coco: SourceConfig, mpii: SourceConfig) -> None:
    for source, skeleton in ((coco, COCO17), (mpii, MPII16)):
        model: Any = ColourReader(skeleton)
        assert list(measured(source, skeleton)) == list(Validator(source, model).metrics)


def test_ap_in_annotated_boxes(coco: SourceConfig) -> None:
    assert measured(coco, COCO17)["AP"] == pytest.approx(1.0)
    assert measured(coco, COCO17, shift=60)["AP"] < 0.5


def test_other_formats_score_as_coco(coco: SourceConfig, tmp_path: Path) -> None:
    config = write_yolo(read_source(coco), tmp_path / "yolo", "val")
    images = str(config.parent / "images/val")
    for kind in ("yolo", "auto"):
        source = SourceConfig.parse({"annotations": str(config), "images": images, "kind": kind})
        assert measured(source, COCO17)["AP"] == pytest.approx(1.0)
    assert measured(coco.model_copy(update={"kind": "auto"}), COCO17)["AP"] == pytest.approx(1.0)


def test_pckh_in_annotated_squares(mpii: SourceConfig) -> None:
    found = measured(mpii, MPII16)
    assert {found[name] for name in ("Head", "Wrist", "Mean")} == {1.0}
    # heads are 8.5 px: half of it in the picture is 8.7 px in a crop of twice the size
    assert measured(mpii, MPII16, shift=8.7)["Mean"] == 0


def test_head_boxes_beside_the_annotations(mpii: SourceConfig) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    boxes = np.zeros((2, 2, 3))
    boxes[1] = 100  # 100 x 100: half a head is 42 px
    savemat(Path(mpii.annotations).with_name("gt_valid.mat"), {"headboxes_src": boxes})
    assert measured(mpii, MPII16, shift=8.7)["Mean"] == 1.0


def test_a_part_of_an_mpii_file(tmp_path: Path) -> None:
    """The people for training are not missed."""
    places = paint(tmp_path / "1.png", MPII16, [(60, 60)])
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((SIDE, SIDE, 3), np.uint8))
    joints = [[*point, 1] for point in (places[0] + 1).tolist()]
    x, y = places[0].mean(0) + 1
    usual = {"objpos": [x, y - 15 * 0.5], "scale_provided": 0.5, "joint_self": joints, "headbox": [50, 50, 60, 60]}
    path = tmp_path / "both.json"
    path.write_text(json.dumps([usual | {"img_paths": f"{flag}.png", "isValidation": flag} for flag in (0, 1)]))
    source = SourceConfig(annotations=str(path), images=str(tmp_path), kind="mpii", split="val")
    assert measured(source, MPII16)["Mean"] == 1
    assert measured(source.model_copy(update={"split": None}), MPII16)["Mean"] == pytest.approx(0.5)


def test_a_part_of_a_coco_file_is_refused(coco: SourceConfig) -> None:
    model: Any = ColourReader(COCO17)
    with pytest.raises(ValueError, match="is no MPII file, which split = 'val' is for"):
        Validator(coco.model_copy(update={"kind": "auto", "split": "val"}), model)


@pytest.mark.parametrize(
    ("field", "value"), [("bbox", None), ("area", None), ("num_keypoints", None), ("iscrowd", None), ("id", None)]
)
def test_fields_may_be_null_or_missing(coco: SourceConfig, field: str, value: None) -> None:
    changed(coco, lambda data: [person.update({field: value}) for person in data["annotations"]])
    assert measured(coco, COCO17)["AP"] == pytest.approx(1.0)
    changed(coco, lambda data: [person.pop(field) for person in data["annotations"]])
    assert measured(coco, COCO17)["AP"] == pytest.approx(1.0)


def test_the_category_called_person(coco: SourceConfig) -> None:
    dog = {"id": 9, "name": "dog", "keypoints": list(COCO17.keypoints)}
    changed(coco, lambda data: data["categories"].insert(0, dog))
    assert measured(coco, COCO17)["AP"] == pytest.approx(1.0)


def test_a_category_without_keypoints(coco: SourceConfig) -> None:
    changed(coco, lambda data: data["categories"].__setitem__(0, {"id": 1, "name": "dancer"}))
    with pytest.raises(ValueError, match="cannot tell which category"):
        read_source(coco)
    beside = Path(coco.annotations).with_name("skeleton.yaml")
    beside.write_text(yaml.safe_dump(COCO17.to_dict()))
    assert read_source(coco).skeleton is COCO17
    assert measured(coco, COCO17)["AP"] == pytest.approx(1.0)


def test_a_skeleton_beside_the_file_with_other_names(coco: SourceConfig) -> None:
    names = [f"p{k}" for k in range(17)]
    changed(coco, lambda data: data["categories"][0].update(keypoints=names))
    with pytest.raises(ValueError, match=r"val\.json has the keypoints p0, p1, .*; the model finds nose"):
        measured(coco, COCO17)
    Path(coco.annotations).with_name("val.skeleton.yaml").write_text(yaml.safe_dump(COCO17.to_dict()))
    assert measured(coco, COCO17)["AP"] == pytest.approx(1.0)


def test_an_unlabelled_person_without_a_box(coco: SourceConfig) -> None:
    nobody = {"id": 99, "image_id": 2, "category_id": 1, "keypoints": [0] * 51}
    changed(coco, lambda data: data["annotations"].append(nobody))
    assert measured(coco.model_copy(update={"unlabelled": "background"}), COCO17)["AP"] == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"area": "large"}, "annotation 1 has area with 'large'|annotation 1: area holds 'large'"),
        ({"num_keypoints": "many"}, "annotation 1 has num_keypoints with 'many'"),
        ({"score": "high"}, r"box 0: score is \['high'\]"),
    ],
)
def test_mistakes_show_before_training(coco: SourceConfig, change: dict[str, Any], words: str) -> None:
    model: Any = ColourReader(COCO17)
    changed(coco, lambda data: data["annotations"][0].update(change))
    with pytest.raises(ValueError, match=words):
        Validator(coco, model)


def test_head_boxes_that_do_not_fit_show_before_training(mpii: SourceConfig) -> None:
    savemat = pytest.importorskip("scipy.io").savemat
    savemat(Path(mpii.annotations).with_name("gt_valid.mat"), {"headboxes_src": np.ones((2, 2, 2))})
    model: Any = ColourReader(MPII16)
    with pytest.raises(ValueError, match="2 head boxes for 3 people"):
        Validator(mpii, model)
