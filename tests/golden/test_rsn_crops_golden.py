"""Crops, augmentation and schedule of RSN against the reference codes (see rsn/*.json for their files)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from golden_case import Case, folder

from poise.data.config import CropConfig
from poise.data.crop_augment import CropDraw, training_frame, training_matrix, upper_mask
from poise.data.crop_config import crop_mmpose, crop_official, crop_official_mpii
from poise.data.crops import box_frame, crop_matrix, crop_view, fitted_sides, warp_crop
from poise.data.mpii import person_box
from poise.geometry.affine import apply, invert
from poise.skeletons import COCO17, MPII16
from poise.train.recipes import recipe
from poise.train.schedule import lr_factor
from poise.types import ImageArray, ViewSpec

BGR = {"channels": "bgr", "mean": (0.406, 0.456, 0.485), "std": (0.225, 0.224, 0.229)}
OFFICIAL = ViewSpec(kind="crop", size=(256, 192), extension=(1.09, 1.135), **BGR)
MPII = ViewSpec(kind="crop", size=(256, 256), extension=(1.25, 1.25))
MMPOSE = ViewSpec(kind="crop", size=(256, 192), extension=(1.25, 1.25))

SAMPLES: list[dict[str, Any]] = json.loads((folder("rsn") / "off_train_samples.json").read_text())["samples"]
SCHEDULES: dict[str, Any] = json.loads((folder("rsn") / "off_lr.json").read_text())["schedules"]


@pytest.fixture(scope="module")
def case() -> Case:
    return Case("rsn", "affine")


def xyxy(box: np.ndarray) -> np.ndarray:
    return np.concatenate([box[..., :2], box[..., :2] + box[..., 2:]], -1)


def close(found: Any, expected: Any) -> None:
    """1e-4 of the largest value: the references round centre and scale to float32."""
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def formula_image(settings: dict[str, Any]) -> ImageArray:
    """The golden picture as RGB; the formula counts channels in BGR order."""
    y, x = np.mgrid[: settings["h"], : settings["w"]].astype(np.float64)
    seed = settings["seed"]
    bgr = [
        127.5 + 60 * np.sin(x / (9 + 3 * c) + 0.01 * seed) + 60 * np.cos(y / (7 + 2 * c) + 0.5 * c) for c in range(3)
    ]
    return np.clip(np.rint(np.stack(bgr[::-1], -1)), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(("source", "spec"), [("official_coco", OFFICIAL), ("mmpose", MMPOSE)])
def test_boxes_become_maps(case: Case, source: str, spec: ViewSpec) -> None:
    unit = 200 if source == "official_coco" else 1
    for i, box in enumerate(xyxy(case["boxes_xywh"])):
        frame = box_frame(box, spec.extension)
        close(frame.centre, case[f"{source}_center"][i])
        close(fitted_sides(frame.sides, (256, 192)), case[f"{source}_scale"][i] * unit)
        matrix = crop_matrix(box, spec, float(case["rotation_deg"][i]))
        close(matrix, case[f"{source}_matrix"][i])
        close(apply(matrix, case["points"]), case[f"{source}_points"][i])
        if source == "mmpose":
            close(invert(matrix), case["mmpose_inverse_matrix"][i])


def test_mpii_centres_become_maps(case: Case) -> None:
    for i, entry in enumerate(case.settings["mpii_annotations"]):
        box = person_box(entry["center"], entry["scale"])
        frame = box_frame(box, MPII.extension)
        close(frame.centre, case["official_mpii_center"][i])
        close(frame.sides / 200, case["official_mpii_scale"][i])
        close(crop_matrix(box, MPII), case["official_mpii_matrix"][i])


@pytest.mark.parametrize(("key", "spec"), [("official_crop_u8", OFFICIAL), ("mmpose_crop_u8", MMPOSE)])
def test_crops_are_the_same_pixels(case: Case, key: str, spec: ViewSpec) -> None:
    image = formula_image(case.settings["image_formula"])
    for box, expected in zip(xyxy(case["crop_boxes_xywh"]), case[key], strict=True):
        crop = warp_crop(image, crop_matrix(box, spec), (256, 192))[..., ::-1].astype(int)
        assert np.abs(crop - expected).max() <= 1


def test_views_are_normalised_alike(case: Case) -> None:
    image = formula_image(case.settings["image_formula"])
    view = crop_view(image, xyxy(case["crop_boxes_xywh"][1]), OFFICIAL)
    rows = view.image[:, 120:124].numpy()
    assert np.abs(rows - case["official_crop_tensor_rows"]).max() <= 1.01 / 255 / 0.224  # one grey level


class Numbers:
    """The numbers of one golden sample, in the order in which the reference drew them."""

    def __init__(self, draws: list[list[Any]]) -> None:
        self._draws = iter(draws)

    def next(self, kind: str) -> float:
        name, value = next(self._draws)
        assert name.startswith(kind)
        return float(value)

    @property
    def used_up(self) -> bool:
        return next(self._draws, None) is None


def drawn(sample: dict[str, Any], config: CropConfig) -> CropDraw:
    """The record that those numbers make."""
    numbers = Numbers(sample["draws_in_call_order"])
    coco = sample["dataset"] == "COCO"
    extension = (numbers.next("np.rand"), numbers.next("np.rand")) if coco else (0.0, 0.0)
    labelled = sum(v > 0 for _, _, v in sample["joints_xyv"])
    half = labelled >= config.half_body_keypoints and numbers.next("np.rand") < config.half_body_p
    upper = half and numbers.next("np.randn") < 0.5
    half_extension = (numbers.next("np.rand"), numbers.next("np.rand")) if half else (0.0, 0.0)
    scale = numbers.next(f"uniform({config.scale[0]},{config.scale[1]}")
    turned = numbers.next("random") < config.rotation_p
    degrees = numbers.next(f"uniform(-{config.rotation:g}") if turned else 0.0
    flip = numbers.next("random") < config.flip_p
    assert numbers.used_up
    return CropDraw(extension, half, upper, half_extension, scale, (0.0, 0.0), degrees, flip)


@pytest.mark.parametrize("sample", SAMPLES, ids=[f"{i}-{s['dataset']}" for i, s in enumerate(SAMPLES)])
def test_training_crops_of_the_official_code(sample: dict[str, Any]) -> None:
    coco = sample["dataset"] == "COCO"
    skeleton, config = (COCO17, crop_official()) if coco else (MPII16, crop_official_mpii())
    spec = OFFICIAL if coco else MPII
    size = spec.size or (0, 0)
    keypoints = np.array(sample["joints_xyv"])
    half = np.array(sample["scale"]) * 100
    box = np.concatenate([np.array(sample["center"]) - half, np.array(sample["center"]) + half])
    upper = upper_mask(config.upper, skeleton.keypoints)
    width = sample["image_hw"][1]
    numbers = drawn(sample, config)
    assert (numbers.half_body, numbers.flip) == (sample["half_body_used"], sample["flipped"])

    frame = training_frame(keypoints, box, width, numbers, config, spec, upper)
    close(frame.centre, sample["final_center"])
    close(fitted_sides(frame.sides, size) / 200, sample["final_scale"])
    assert frame.degrees == sample["rotation"]
    matrix = training_matrix(keypoints, box, width, numbers, config, spec, upper)
    found = apply(matrix, keypoints[:, :2])
    if sample["flipped"]:
        found, keypoints = found[list(skeleton.flip_index)], keypoints[list(skeleton.flip_index)]
    labelled = keypoints[:, 2] > 0
    close(found[labelled], np.array(sample["joints_in_crop"])[labelled])
    inside = ((found >= 0) & (found <= np.array(size[::-1]) - 1)).all(1)
    np.testing.assert_array_equal(keypoints[:, 2] * inside, sample["valid"])
    height, width = sample["image_hw"]
    crop = warp_crop(formula_image({"h": height, "w": width, "seed": 1}), matrix, size)
    assert crop.mean((0, 1))[::-1] == pytest.approx(sample["crop_mean_bgr"], abs=1e-3)


@pytest.mark.parametrize(("name", "reference"), [("rsn18", "RSN18.coco"), ("rsn18_mpii", "RSN18.mpii")])
def test_the_schedule_of_the_official_code(name: str, reference: str) -> None:
    train, expected = recipe(name).train, SCHEDULES[reference]
    assert train.steps == expected["max_iter"]
    for step, factor in expected["factor_at"].items():
        assert lr_factor(int(step), train.schedule, expected["max_iter"]) == pytest.approx(factor, rel=1e-9, abs=1e-15)
    adam = expected["adam"]
    assert (train.optimiser.kind, train.optimiser.lr) == ("adam", adam["lr_at_factor_1"])
    assert (list(train.optimiser.betas), train.optimiser.weight_decay) == (adam["betas"], adam["weight_decay"])


def test_the_views_of_the_presets_are_those_of_the_references() -> None:
    for name, spec in (("rsn18", OFFICIAL), ("rsn18_mpii", MPII), ("rsn18_mmpose", MMPOSE)):
        run = recipe(name)
        assert (run.model.view.size, run.model.view.extension) == (spec.size, spec.extension)
    crops = [recipe(n).data.crop for n in ("rsn18", "rsn18_mpii", "rsn18_mmpose")]
    assert crops == [crop_official(), crop_official_mpii(), crop_mmpose()]
