"""Keypoints that a model adds to annotations: only sure ones, only of people whom it sees as the labels do."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import poise
from poise.cli.main import app
from poise.predict.labelling import MARK, label_missing

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def predictor() -> Any:
    from poise.predict.boxes import Boxes

    return poise.pipeline(Boxes({}), "rsn_small", device="cpu")


@pytest.fixture(scope="module")
def document(predictor: Any) -> dict[str, Any]:
    """The astronaut, as the model itself sees her: all that it finds is labelled."""
    made = json.loads((EXAMPLES / "people.json").read_text())
    names = {image["id"]: image["file_name"] for image in made["images"]}
    person = next(a for a in made["annotations"] if names[a["image_id"]] == "astronaut.png")
    x, y, w, h = person["bbox"]
    from poise.data.crops import crop_view
    from poise.data.images import read_image

    image = read_image(EXAMPLES / "astronaut.png")
    [pose] = predictor.predict_views([crop_view(image, [x, y, x + w, y + h], predictor.model.view)], flip=True)
    person["keypoints"] = np.c_[pose.keypoints[0], np.full(17, 2)].round(1).ravel().tolist()
    made["keypoint_scores"] = pose.keypoint_scores[0].tolist()
    made["annotations"] = [person]
    made["images"] = [image for image in made["images"] if image["id"] == person["image_id"]]
    return made


def without(document: dict[str, Any], keypoints: range | list[int]) -> dict[str, Any]:
    less = copy.deepcopy(document)
    for k in keypoints:
        less["annotations"][0]["keypoints"][3 * k : 3 * k + 3] = [0, 0, 0]
    return less


def test_what_is_missing_comes_back_where_the_model_is_sure(predictor: Any, document: dict[str, Any]) -> None:
    less = without(document, range(5))
    before = copy.deepcopy(less)
    done = label_missing(less, EXAMPLES, predictor, min_score=0.0, turns=False)
    assert less == before
    assert (done.people, done.agreed, done.changed) == (1, 1, 1)
    [person] = done.document["annotations"]
    wanted = document["annotations"][0]["keypoints"]
    assert person["keypoints"][15:] == wanted[15:]
    np.testing.assert_allclose(person["keypoints"], wanted, atol=0.11)
    assert person[MARK] == [*done.added] == list(predictor.skeleton.keypoints[:5])
    assert person["num_keypoints"] == 17
    scores = dict(zip(predictor.skeleton.keypoints, document["keypoint_scores"][:5], strict=False))
    least = (min(scores.values()) + max(scores.values())) / 2
    sure = label_missing(less, EXAMPLES, predictor, min_score=least, turns=False)
    assert [*sure.added] == [name for name, score in scores.items() if score >= least] != [*scores]
    assert sure.document["annotations"][0]["num_keypoints"] == 12 + len(sure.added)


def test_turned_people_agree_when_they_are_turned(predictor: Any, document: dict[str, Any], tmp_path: Path) -> None:
    with Image.open(EXAMPLES / "astronaut.png") as picture:
        picture.convert("RGB").rotate(180).save(tmp_path / "astronaut.png")
        width, height = picture.size
    less = without(document, range(5))
    [person] = less["annotations"]
    x, y, w, h = person["bbox"]
    person["bbox"] = [width - x - w, height - y - h, w, h]
    labels = np.reshape(person["keypoints"], (-1, 3))
    labels[labels[:, 2] > 0] = [width - 1, height - 1, 2] + labels[labels[:, 2] > 0] * [-1, -1, 0]
    person["keypoints"] = labels.ravel().tolist()
    done = label_missing(less, tmp_path, predictor, min_score=0.0, agreement=0.9)
    assert done.agreed == 1
    found = np.reshape(done.document["annotations"][0]["keypoints"], (-1, 3))[:5, :2]
    truth = np.reshape(document["annotations"][0]["keypoints"], (-1, 3))[:5, :2]
    assert np.abs([width - 1, height - 1] - found - truth).max() < 0.05 * max(w, h)


@pytest.mark.parametrize("box", [{"bbox": None}, {}])
def test_people_without_a_box_have_the_extent_of_their_labels(
    predictor: Any, document: dict[str, Any], box: dict[str, Any]
) -> None:
    less = without(document, range(5))
    [person] = less["annotations"]
    labels = np.reshape(person["keypoints"], (-1, 3))[5:, :2]
    low, high = labels.min(0).tolist(), labels.max(0).tolist()
    given = copy.deepcopy(less)
    given["annotations"][0]["bbox"] = [*low, high[0] - low[0], high[1] - low[1]]
    del person["bbox"]
    person |= box
    done, expected = (label_missing(d, EXAMPLES, predictor, min_score=0.0, turns=False) for d in (less, given))
    assert done.people == 1
    assert (done.agreed, dict(done.added)) == (expected.agreed, dict(expected.added))
    assert done.document["annotations"][0]["keypoints"] == expected.document["annotations"][0]["keypoints"]
    assert done.document["annotations"][0].get("bbox") is None


def test_pictures_are_turned_as_they_were_annotated(predictor: Any, document: dict[str, Any], tmp_path: Path) -> None:
    """As for a data set: where the annotated size is that of the stored pixels, EXIF turns nothing."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(EXAMPLES / "astronaut.png") as picture:
        width, height = picture.size
        picture.convert("RGB").crop((0, 0, width, height - 2)).save(tmp_path / "astronaut.png", exif=exif)
    less = without(document, range(5))
    less["images"][0] |= {"width": width, "height": height - 2}
    done = label_missing(less, tmp_path, predictor, min_score=0.0, turns=False)
    assert done.agreed == 1
    upright = copy.deepcopy(less)
    upright["images"][0] |= {"width": height - 2, "height": width}
    assert label_missing(upright, tmp_path, predictor, min_score=0.0, turns=False).agreed == 0
    less["images"][0]["width"] = 7
    with pytest.raises(ValueError, match=rf"astronaut\.png has .* pixels, its annotation says 7x{height - 2}"):
        label_missing(less, tmp_path, predictor)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_id": 99}, "annotation 5 belongs to image 99, which is not listed"),
        ({"image_id": None}, "annotation 5 belongs to image None, which is not listed"),
        ({"bbox": [1, 2, 3]}, "annotation 5: bbox must have 4 numbers, not 3"),
        ({"bbox": [1, 2, -3, 4]}, "annotation 5: bbox .* has a negative side"),
        ({"keypoints": [None] * 51}, "annotation 5: keypoints holds None"),
    ],
)
def test_annotations_that_are_wrong(
    predictor: Any, document: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    less = without(document, range(5))
    less["annotations"][0] |= {"id": 5} | change
    with pytest.raises(ValueError, match=words) as error:
        label_missing(less, EXAMPLES, predictor)
    assert "\n" not in str(error.value)


def test_who_is_left_alone(predictor: Any, document: dict[str, Any]) -> None:
    other = without(document, range(5))
    labels = np.reshape(other["annotations"][0]["keypoints"], (-1, 3))
    labels[5:, 0] += 0.3 * max(other["annotations"][0]["bbox"][2:])
    other["annotations"][0]["keypoints"] = labels.ravel().tolist()
    assert label_missing(other, EXAMPLES, predictor, min_score=0.0).document == other
    crowd = without(document, range(5))
    crowd["annotations"][0]["iscrowd"] = 1
    for nobody in (crowd, document, without(document, range(15))):
        assert label_missing(nobody, EXAMPLES, predictor, min_score=0.0).people == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"categories": [{"keypoints": ["a", "b"]}]}, "no category of the annotations"),
        ({"images": None}, "'images' is not a list"),
        ({"annotations": [3]}, "'annotations' is not a list of objects"),
        ({"images": [{"id": 1}]}, "the annotations: image 1 has no file_name"),
    ],
)
def test_annotations_that_do_not_fit(
    predictor: Any, document: dict[str, Any], change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        label_missing({**document, **change}, EXAMPLES, predictor)
    with pytest.raises(ValueError, match=r"agreement 2 must lie in 0\.\.1"):
        label_missing(document, EXAMPLES, predictor, agreement=2)


def test_on_the_command_line(document: dict[str, Any], tmp_path: Path) -> None:
    path, out = tmp_path / "people.json", tmp_path / "labelled.json"
    path.write_text(json.dumps(without(document, range(5))))
    words = ["data", "label", str(path), "--images", str(EXAMPLES), "--device", "cpu", "--min-score", "0.0"]
    result = CliRunner().invoke(app, [*words, "--out", str(out), "--json"])
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["people"], told["changed"], len(told["added"])) == (1, 1, 5)
    assert json.loads(out.read_text())["annotations"][0]["num_keypoints"] == 17
    for more, message in (
        (["--out", str(path)], "is the file that is read"),
        (["--out", str(out), "--model", "smpr_mobilenetv2"], "looks at whole pictures"),
    ):
        result = CliRunner().invoke(app, [*words, *more])
        assert result.exit_code == 1
        assert message in " ".join(result.stderr.split())
