"""The report: one file that needs nothing else, and says what was found."""

import base64
import io
import re
import xml.etree.ElementTree as ET
from html import unescape

import numpy as np
import pytest
from PIL import Image

from poise.evaluate.analysis import STEPS, analyse
from poise.evaluate.coco import evaluate_results
from poise.evaluate.examples import LONGEST, draw_example, worst_cases
from poise.evaluate.report import FILE, write_report
from poise.skeletons import COCO17

SIZE = (240, 320)


def made(pictures=6, seed=0):
    """Truth and results with errors of every kind."""
    rng = np.random.default_rng(seed)
    flip = list(COCO17.flip_index)
    people, results = [], []
    for image in range(1, pictures + 1):
        twins = []
        for place in (20, 170):
            points = rng.uniform((place, 20), (place + 110, 220), (17, 2))
            triples = np.column_stack([points, np.full(17, 2)])
            box = [*points.min(0).tolist(), *np.ptp(points, axis=0).tolist()]
            entry = {"image_id": image, "category_id": 1, "keypoints": triples.reshape(-1).tolist(), "bbox": box}
            people.append({"id": len(people) + 1, "area": 12_000.0, "iscrowd": 0, "num_keypoints": 17} | entry)
            twins.append(points)
        wrong = twins[0] + rng.normal(0, 3, (17, 2))
        if image % 3 == 0:
            wrong[5:] = twins[0][flip][5:]
        elif image % 3 == 1:
            wrong[9:12] = twins[1][9:12]
            wrong[0] -= 90
        for points, score in ((wrong, 0.9), (wrong + 2, 0.95), (twins[1] - 400, 0.6)):
            found = np.column_stack([points, np.ones(17)]).reshape(-1).tolist()
            results.append({"image_id": image, "keypoints": found, "score": score - image / 100})
    images = [
        {"id": i, "file_name": f"<p&{i}>.png", "height": SIZE[0], "width": SIZE[1]} for i in range(1, pictures + 1)
    ]
    category = {"id": 1, "name": "person", "keypoints": list(COCO17.keypoints)}
    return {"images": images, "annotations": people, "categories": [category]}, results


@pytest.fixture(scope="module")
def evaluation():
    return evaluate_results(*made(), name="<model> & co")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(1)
    for i in range(1, 6):
        Image.fromarray(rng.integers(0, 40, (*SIZE, 3), np.uint8)).save(tmp_path / f"<p&{i}>.png")
    (tmp_path / "<p&5>.png").write_bytes(b"no picture")
    return tmp_path


def pictures_in(text):
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', text)
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in found]


def test_one_file_with_everything(evaluation, folder, tmp_path):
    path = write_report(tmp_path / "new/report", [evaluation], images=folder, title="a < b", samples=50)
    assert path == tmp_path / "new/report" / FILE
    assert [p.name for p in path.parent.iterdir()] == [FILE]
    text = path.read_text(encoding="utf-8")
    assert "<title>a &lt; b</title>" in text
    assert "&lt;model&gt; &amp; co" in text
    assert "<model>" not in text
    # nothing is loaded from elsewhere: no address but the names of the vocabularies of SVG
    assert not re.search(r"<script|<link|@import|src=\"(?!data:)", text)
    assert not re.search(r"(?:href|src)=\"(?!#|data:)", text)
    pictures = pictures_in(text)
    kinds = [kind for kind in STEPS if worst_cases(evaluation, analyse(evaluation))[kind]]
    assert len(kinds) >= 6
    assert all(f"{kind.capitalize()}: " in text for kind in kinds)
    assert len(pictures) == sum(len(v) for v in worst_cases(evaluation, analyse(evaluation)).values())
    assert max(max(p.size) for p in pictures) <= LONGEST + 1
    for name in (*evaluation.numbers, *COCO17.keypoints, "share of occluded keypoints", "PCK 0.1"):
        assert name in unescape(text)
    assert f"{100 * evaluation.numbers['AP']:.1f}" in text


def test_plots_are_well_formed(evaluation, tmp_path):
    text = write_report(tmp_path, [evaluation], samples=10, examples=0).read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", text, flags=re.DOTALL)
    assert len(drawings) == 5
    for drawing in drawings:
        assert len(list(ET.fromstring(drawing).iter())) > 50  # noqa: S314  (our own text)
    assert pictures_in(text) == []
    again = write_report(tmp_path, [evaluation], samples=10, examples=0).read_text(encoding="utf-8")
    assert again == text


def test_pictures_that_are_missing_are_drawn_on_grey(evaluation, folder, tmp_path):
    shades = {}
    for name, images in (("with", folder), ("without", None)):
        text = write_report(tmp_path / name, [evaluation], images=images, samples=10).read_text(encoding="utf-8")
        shades[name] = [np.asarray(picture.convert("L")) for picture in pictures_in(text)]
    assert len(shades["with"]) == len(shades["without"])
    assert all(np.abs(np.median(picture) - 96) < 6 for picture in shades["without"])
    dark = [np.median(picture) < 60 for picture in shades["with"]]
    assert any(dark)
    assert not all(dark)


def test_several_are_compared(evaluation, tmp_path):
    truth, results = made()
    better = evaluate_results(truth, [r for r in results if r["score"] > 0.7], name="better")
    text = write_report(tmp_path, [evaluation, better], samples=100, examples=1).read_text(encoding="utf-8")
    assert "<h2>Differences</h2>" in text
    assert text.count("where precision is lost") == 2
    gain = 100 * (better.numbers["AP"] - evaluation.numbers["AP"])
    assert f"{gain:+.1f}" in text
    other = evaluate_results(*made(3))
    with pytest.raises(ValueError, match="not evaluated on the same pictures"):
        write_report(tmp_path, [evaluation, other], samples=10)


def test_nothing_to_report(tmp_path):
    truth, _ = made(1)
    for data in (truth, {**truth, "annotations": []}, {**truth, "images": [], "annotations": []}):
        text = write_report(tmp_path, [evaluate_results(data, [])], samples=10).read_text(encoding="utf-8")
        assert "Nobody was found" in text


def test_worst_cases(evaluation):
    analysis = analyse(evaluation)
    cases = worst_cases(evaluation, analysis, count=2)
    assert set(cases) == set(STEPS)
    assert all(len(found) <= 2 for found in cases.values())
    assert [len({case.picture for case in found}) for found in cases.values()] == [len(f) for f in cases.values()]
    inverted = cases["inversion"][0]
    assert inverted.picture in (2, 5)
    assert set(inverted.keypoints) <= set(range(5, 17))
    assert len(inverted.keypoints) >= 6
    assert "left_shoulder" in inverted.caption
    swapped = cases["swap"][0]
    assert set(swapped.keypoints) >= {9, 10, 11}
    assert len(swapped.keypoints) <= 5
    areas = [evaluation.truth.areas[case.person] for case in cases["missed person"]]
    assert areas == sorted(areas, reverse=True)
    scores = [evaluation.found.scores[case.pose] for case in cases["false positive"]]
    assert scores == sorted(scores, reverse=True)
    assert worst_cases(evaluation, analysis, count=0) == {kind: [] for kind in STEPS}


def test_an_example_shows_truth_pose_and_error(evaluation):
    analysis = analyse(evaluation)
    case = worst_cases(evaluation, analysis)["swap"][0]
    image = np.zeros((*SIZE, 3), np.uint8)
    drawn = draw_example(image, evaluation, case)
    assert drawn.dtype == np.uint8
    assert max(drawn.shape[:2]) == LONGEST
    flat = drawn.reshape(-1, 3).astype(int)
    red = (flat[:, 0] > 200) & (flat[:, 1] < 90) & (flat[:, 2] < 110)
    white = (flat > 230).all(1)
    assert red.sum() > 100
    assert white.sum() > 100
    assert (image == 0).all()
    missed = worst_cases(evaluation, analysis)["missed person"][0]
    plain = draw_example(image, evaluation, missed).reshape(-1, 3).astype(int)
    assert (np.ptp(plain, axis=1) < 40).all(), "nobody found them: no colours"
