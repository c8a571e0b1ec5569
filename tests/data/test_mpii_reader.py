import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from poise.data.formats import read_dataset
from poise.data.images import ImageError
from poise.data.mpii import person_box, read_head_boxes, read_mpii, read_mpii_people
from poise.skeletons import COCO17, MPII16

DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).resolve().parents[3] / "shared/data")
JOINTS = [[float(10 + i), float(20 + 2 * i)] for i in range(16)]


def entry(**more: Any) -> dict[str, Any]:
    seen = [1] * 15 + [0]
    return {"image": "a.png", "center": [31.0, 41.0], "scale": 0.4, "joints": JOINTS, "joints_vis": seen, **more}


def other_form(**more: Any) -> dict[str, Any]:
    joints = [[*point, 1.0] for point in JOINTS[:14]] + [[5.0, 6.0, 0.0], [0.0, 0.0, 0.0]]
    return {"img_paths": "a.png", "objpos": [31.0, 41.0], "scale_provided": 0.4, "joint_self": joints, **more}


def write(folder: Path, *entries: Any) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (80, 60)).save(folder / name)
    path = folder / "valid.json"
    path.write_text(json.dumps(list(entries)))
    return path


def test_boxes_follow_centre_and_scale() -> None:
    assert person_box([101, 51], 0.5).tolist() == [50, 7.5, 150, 107.5]
    assert person_box([-1, 51], 0.5).tolist() == [-52, 0, 48, 100], "no centre: nothing is moved down"


def test_people_and_pictures(tmp_path: Path) -> None:
    path = write(tmp_path, entry(), entry(image="b.png"), entry(joints_vis=[0] * 16), entry(scale=0.2))
    dataset = read_mpii(path, tmp_path)
    assert (dataset.name, dataset.skeleton, dataset.person_count) == ("valid", MPII16, 3)
    first, second = dataset
    assert (first.image_id, first.size, first.path) == ("a.png", (60, 80), tmp_path / "a.png")
    assert (second.image_id, len(second)) == ("b.png", 1)
    assert first.keypoints[0, :15, :2].tolist() == (np.array(JOINTS)[:15] - 1).tolist()
    assert first.keypoints[0, :, 2].tolist() == [2] * 15 + [0]
    assert first.boxes.tolist() == [pytest.approx([-10, 6, 70, 86]), pytest.approx([10, 23, 50, 63])]
    assert first.areas.tolist() == pytest.approx([0.53 * 14 * 28] * 2)
    assert first.ignore.tolist() == [pytest.approx([-10, 6, 70, 86])]


def test_the_other_form(tmp_path: Path) -> None:
    (person,) = read_mpii_people(write(tmp_path, other_form()))
    assert person.image == "a.png"
    assert person.keypoints[:, 2].tolist() == [2] * 14 + [1, 0]
    assert person.keypoints[14, :2].tolist() == [4, 5]
    assert person.box.tolist() == pytest.approx([-10, 6, 70, 86])


def test_training_and_validation_people_of_one_file(tmp_path: Path) -> None:
    flags = (0.0, 1, 0, True)
    path = write(tmp_path, *(other_form(isValidation=flag, scale_provided=0.1 + i) for i, flag in enumerate(flags)))
    assert [person.validation for person in read_mpii_people(path)] == [False, True, False, True]
    scales = [[(p.box[2] - p.box[0]) / 200 for p in read_mpii_people(path, part)] for part in ("train", "val")]
    assert scales == [pytest.approx([0.1, 2.1]), pytest.approx([1.1, 3.1])]
    assert [read_dataset(path, tmp_path, split=part).person_count for part in (None, "train", "val")] == [4, 2, 2]
    with pytest.raises(ValueError, match=r"valid\.json has no part 'test': isValidation tells train from val alone"):
        read_mpii_people(path, "test")


def test_a_file_that_tells_no_parts(tmp_path: Path) -> None:
    path = write(tmp_path, other_form(isValidation=0), other_form())
    assert read_mpii(path, tmp_path).person_count == 2
    with pytest.raises(ValueError, match=r"no part 'val': entry 1 has no isValidation; ask for no part"):
        read_mpii(path, tmp_path, split="val")
    with pytest.raises(ValueError, match="entry 0: isValidation must be 0 or 1, not 'yes'"):
        read_mpii_people(write(tmp_path, other_form(isValidation="yes")))


@pytest.mark.parametrize("box", [[11, 21, 41, 61], [[11, 21], [41, 61]]])
@pytest.mark.parametrize("key", ["headbox", "head_box", "head_rect"])
def test_head_boxes(tmp_path: Path, key: str, box: list[Any]) -> None:
    with_head, without = read_mpii_people(write(tmp_path, entry(**{key: box}), entry()))
    assert with_head.head_box is not None
    assert with_head.head_box.tolist() == [10, 20, 40, 60]
    assert without.head_box is None


def test_files_of_head_boxes(tmp_path: Path) -> None:
    path = tmp_path / "heads.json"
    path.write_text("[[1, 2, 3, 4], [5, 6, 7, 8]]")
    assert read_head_boxes(path).tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]]
    path.write_text("[]")
    assert read_head_boxes(path).shape == (0, 4)
    for content, message in (('{"a": 1}', "list of head boxes"), ("[[1, 2]]", "entry 0: head box must have 4")):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            read_head_boxes(path)


def test_matlab_files_of_head_boxes(tmp_path: Path) -> None:
    io = pytest.importorskip("scipy.io")
    boxes = np.array([[1.0, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]])
    path = tmp_path / "gt_valid.mat"
    io.savemat(path, {"headboxes_src": boxes.T.reshape(2, 2, 3), "jnt_missing": np.zeros((16, 3))})
    assert read_head_boxes(path).tolist() == boxes.tolist()
    io.savemat(path, {"other": boxes})
    with pytest.raises(ValueError, match="no headboxes_src"):
        read_head_boxes(path)
    path.write_bytes(b"not a matrix")
    with pytest.raises(ValueError, match=r"not a readable \.mat file"):
        read_head_boxes(path)
    with pytest.raises(FileNotFoundError, match=r"no\.mat"):
        read_head_boxes(tmp_path / "no.mat")


def test_test_sets_have_no_joints(tmp_path: Path) -> None:
    path = write(tmp_path, {"image": "a.png", "center": [31.0, 41.0], "scale": 0.4})
    record = read_mpii(path, tmp_path)[0]
    assert (len(record), record.ignore.shape) == (0, (1, 4))


def test_min_keypoints_and_empty_files(tmp_path: Path) -> None:
    path = write(tmp_path, entry(), entry(image="b.png", joints_vis=[1, 0] * 8))
    assert [len(read_mpii(path, tmp_path, min_keypoints=n)) for n in (0, 8, 9, 16)] == [2, 2, 1, 0]
    assert len(read_mpii(write(tmp_path), tmp_path)) == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (entry(image=None), "entry 0: it has no picture"),
        (entry(center=[1]), "entry 0: center must have 2 numbers, not 1"),
        (entry(scale="big"), "entry 0: scale holds 'big'"),
        (entry(scale=0), "entry 0: scale must be positive, not 0"),
        (entry(joints=JOINTS[:14]), "entry 0: joints must have 16 rows, not 14"),
        (entry(joints=[[1.0]] * 16), r"entry 0: joints\[0\] must have 2 numbers"),
        (entry(joints_vis=None), "entry 0: joints_vis must have 16 numbers, not None"),
        (entry(joints_vis=[2] * 16), "entry 0: joints_vis must hold 0 and 1"),
        (entry(headbox=[3, 3, 1, 1]), "entry 0: head box .* x1 < x2"),
        (other_form(joint_self=JOINTS), r"entry 0: joint_self\[0\] must have 3 numbers, not 2"),
        (3, "must be a list of objects"),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=rf"valid\.json.*{message}") as caught:
        read_mpii(write(tmp_path, bad), tmp_path)
    assert "\n" not in str(caught.value)


def test_bad_pictures_and_skeletons(tmp_path: Path) -> None:
    path = write(tmp_path, entry(image="c.png"))
    with pytest.raises(FileNotFoundError, match=r"1 of 1 pictures .*c\.png"):
        read_mpii(path, tmp_path)
    (tmp_path / "c.png").write_text("broken")
    with pytest.raises(ImageError, match=r"c\.png"):
        read_mpii(path, tmp_path)
    with pytest.raises(ValueError, match="16 joints, skeleton 'coco17' has 17"):
        read_mpii(path, tmp_path, skeleton=COCO17)
    path.write_text('{"images": []}')
    with pytest.raises(ValueError, match="not an MPII file"):
        read_mpii(path, tmp_path)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real pictures in {DATA}")
def test_real_annotations() -> None:
    folder = DATA / "formats/mpii"
    dataset = read_mpii(folder / "test_mpii.json", folder)
    assert (len(dataset), dataset.person_count) == (5, 5)
    assert sorted(r.labelled for r in dataset) == [14, 14, 16, 16, 16]
    for record in dataset:
        seen = record.keypoints[0, record.keypoints[0, :, 2] > 0, :2]
        x1, y1, x2, y2 = record.boxes[0]
        # the annotated square holds nearly every joint once it is enlarged by the usual 1.25
        margin = 0.125 * (x2 - x1)
        inside = (seen > [x1 - margin, y1 - margin]) & (seen < [x2 + margin, y2 + margin])
        assert inside.all(1).mean() > 0.9
