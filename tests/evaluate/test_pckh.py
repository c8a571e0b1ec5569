import json
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from poise.data.mpii import MpiiPerson, read_mpii_people
from poise.evaluate.mpii import GROUPS, METRICS, evaluate_mpii, head_sizes, joint_rates, match_poses, pckh
from poise.skeletons import MPII16

JOINTS = len(MPII16)
DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).resolve().parents[3] / "shared/data")


def person(image="a.jpg", box=(0.0, 0.0, 200.0, 200.0), head=(90.0, 0.0, 98.0, 6.0), shift=0.0, labelled=2.0):
    rng = np.random.default_rng(3)
    points = np.column_stack([rng.integers(20, 180, (JOINTS, 2)) + shift, np.full(JOINTS, labelled)])
    return MpiiPerson(image, points, np.array(box), None if head is None else np.array(head))


def result(someone, score=1.0, moved=(0.0, 0.0), image=None, box=True):
    points = someone.keypoints[:, :2] + np.array(moved)
    found = {
        "image_id": image or someone.image,
        "keypoints": np.column_stack([points, np.ones(JOINTS)]).reshape(-1).tolist(),
        "score": score,
    }
    x1, y1, x2, y2 = someone.box
    return found | ({"bbox": [x1, y1, x2 - x1, y2 - y1]} if box else {})


def table(**rates):
    return pytest.approx({name: rates.get(name, 1.0) for name in METRICS})


def test_a_part_of_a_file(tmp_path):
    """The people of the other part are neither found nor missed."""
    joints = [[*point, 1] for point in np.random.default_rng(0).integers(20, 180, (JOINTS, 2)).tolist()]
    usual = {"objpos": [100, 100], "scale_provided": 1.0, "joint_self": joints, "headbox": [90, 1, 98, 7]}
    path = tmp_path / "both.json"
    path.write_text(json.dumps([usual | {"img_paths": f"{flag}.jpg", "isValidation": flag} for flag in (0, 1)]))
    found = [result(p) for p in read_mpii_people(path, "val")]
    assert evaluate_mpii(path, found, split="val") == table()
    assert evaluate_mpii(path, found)["Mean"] == pytest.approx(0.5)
    with pytest.raises(ValueError, match=r"belongs to picture '1\.jpg', which the annotations do not list"):
        evaluate_mpii(path, found, split="train")


def test_truth_is_perfect():
    people = [person(), person("b.jpg")]
    assert evaluate_mpii(people, [result(p) for p in people]) == table()
    assert evaluate_mpii(people, [result(p, box=False) for p in people], formula="mmpose") == table()


def test_the_limit_itself_is_where_the_formulas_differ():
    truth = np.zeros((1, JOINTS, 2))
    found = truth + np.array([1.0, 0.0])
    everything = np.ones((1, JOINTS))
    for limit, wide in ((2.0, "Mean"), (10.0, "Mean@0.1")):
        assert pckh(found, truth, everything, [limit], "official")[wide] == 1
        assert pckh(found, truth, everything, [limit], "mmpose")[wide] == 0
    assert pckh(found, truth, everything, [9.5], "official")["Mean@0.1"] == 0
    assert pckh(found, truth, everything, [9.5], "official")["Mean@0.11"] == 1


def test_groups_and_means():
    truth = np.zeros((2, JOINTS, 2))
    labelled = np.ones((2, JOINTS))
    found = truth.copy()
    found[0, 10] = 100  # one of two right wrists
    found[:, 6] = 100  # both pelvises, which are in no mean
    means = {"Mean": 27 / 28, "Mean@0.1": 27 / 28, "Mean@0.11": 27 / 28}
    assert pckh(found, truth, labelled, [10, 10]) == table(Wrist=0.75, **means)
    assert joint_rates(found, truth, labelled, [10, 10])[[6, 10, 15]].tolist() == [0, 0.5, 1]
    labelled[0, 10] = 0
    assert pckh(found, truth, labelled, [10, 10]) == table()
    labelled[:, 10] = 0
    found[0, 15] = 100
    assert pckh(found, truth, labelled, [10, 10])["Wrist"] == 0.5, "an unlabelled side does not count"


def test_nobody_nothing_found_nothing_labelled():
    assert evaluate_mpii([], []) == dict.fromkeys(METRICS, 0.0)
    assert evaluate_mpii([person()], []) == dict.fromkeys(METRICS, 0.0)
    nameless = person(labelled=0)
    assert evaluate_mpii([nameless], [result(nameless)]) == dict.fromkeys(METRICS, 0.0)


def test_one_pose_a_person_by_place_and_score():
    left, right = person(), person(box=(200.0, 0.0, 400.0, 200.0), shift=200.0)
    poses = [result(right, 0.6), result(left, 0.5), result(left, 0.4, moved=(70, 0))]
    assert match_poses([left, right], poses).tolist() == [
        left.keypoints[:, :2].tolist(),
        right.keypoints[:, :2].tolist(),
    ]
    # the weaker pose of the same place loses, but serves the other person when nobody else is left
    found = match_poses([left, right], [result(left, 0.2), result(left, 0.9, moved=(1, 1))])
    assert found[0].tolist() == (left.keypoints[:, :2] + 1).tolist()
    assert found[1].tolist() == left.keypoints[:, :2].tolist()
    assert np.isnan(match_poses([left, right], poses[:1])[0]).all()
    assert match_poses([left], [result(left, -1.0)])[0].tolist() == left.keypoints[:, :2].tolist()


def test_head_sizes(caplog):
    assert head_sizes([person()]).tolist() == pytest.approx([6.0])
    assert head_sizes([person(head=None)], [[0, 0, 30, 40]]).tolist() == pytest.approx([30.0])
    assert not caplog.records
    bare = person(head=None)
    neck, top = bare.keypoints[8, :2], bare.keypoints[9, :2]
    hidden = person(head=None, labelled=0)
    with caplog.at_level(logging.WARNING):
        sizes = head_sizes([bare, hidden, person()])
    assert sizes.tolist() == pytest.approx([np.hypot(*(top - neck)), 20.0, 6.0])
    assert "2 of 3 people have no head box" in caplog.text


def test_head_boxes_from_a_file(tmp_path):
    path = tmp_path / "heads.json"
    path.write_text("[[0, 0, 30, 40]]")
    someone = person(head=None)
    moved = [result(someone, moved=(15.0, 0.0))]
    assert evaluate_mpii([someone], moved, head_boxes=path)["Mean"] == 1
    assert evaluate_mpii([someone], moved, head_boxes=path, formula="mmpose")["Mean"] == 0
    with pytest.raises(ValueError, match="1 head boxes for 2 people"):
        evaluate_mpii([someone] * 2, moved, head_boxes=path)


def test_bad_input():
    with pytest.raises(ValueError, match=r"picture 'c\.jpg'"):
        evaluate_mpii([person()], [result(person(), image="c.jpg")])
    with pytest.raises(ValueError, match="3 keypoint numbers, not 48"):
        evaluate_mpii([person()], [{"image_id": "a.jpg", "keypoints": [1, 2, 3], "score": 1}])
    with pytest.raises(ValueError, match=r"\(1, 16, 2\)"):
        pckh(np.zeros((1, 14, 2)), np.zeros((1, 14, 2)), np.ones((1, 14)), [1])
    for size in (0, np.nan):
        with pytest.raises(ValueError, match="not positive"):
            pckh(np.zeros((1, 16, 2)), np.zeros((1, 16, 2)), np.ones((1, 16)), [size])
    with pytest.raises(ValueError, match="'coco'"):
        pckh(np.zeros((0, 16, 2)), np.zeros((0, 16, 2)), np.ones((0, 16)), [], "coco")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no extent"):
        head_sizes([person()], [[3, 3, 3, 3]])


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real pictures in {DATA}")
def test_truth_of_real_annotations():
    path = DATA / "formats/mpii/test_mpii.json"
    people = read_mpii_people(path)
    assert len(people) == len(json.loads(path.read_text()))
    truth = [result(p) for p in people]
    assert evaluate_mpii(path, truth) == table()
    assert set(GROUPS) < set(METRICS)
