"""Poses as a folder of files: YOLO and OpenPose."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from poses_for_files import some_poses

from poise import results
from poise.data.yolo import read_yolo
from poise.skeletons import COCO17, CROWDPOSE14, MPII16
from poise.types import Poses


def numbers(path):
    return [[float(v) for v in line.split()] for line in path.read_text().splitlines()]


def test_yolo_labels_are_shares_of_the_picture(tmp_path):
    poses = some_poses(2, source="photos/a.jpg")
    results.save(tmp_path, poses, "yolo")
    lines = numbers(tmp_path / "a.txt")
    assert [line[0] for line in lines] == [0, 0]
    for line, points, box in zip(lines, poses.keypoints, poses.boxes, strict=True):
        triples = np.array(line[5:]).reshape(-1, 3)
        np.testing.assert_allclose(triples[:, :2] * (320, 240), points, atol=1e-3)
        assert (triples[:, 2] == 2).all()
        x, y, w, h = np.array(line[1:5]) * (320, 240, 320, 240)
        np.testing.assert_allclose([x - w / 2, y - h / 2, x + w / 2, y + h / 2], box, atol=1e-3)


def test_yolo_labels_are_read_by_the_reader_of_data_sets(tmp_path):
    poses = some_poses(2, source="a.png")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (320, 240)).save(tmp_path / "images/a.png")
    results.save(tmp_path / "labels", poses, "yolo")
    config = {"train": "images", "kpt_shape": [17, 3], "names": ["person"], "flip_idx": list(COCO17.flip_index)}
    (tmp_path / "data.yaml").write_text(json.dumps({"path": str(tmp_path), **config}))
    [record] = read_yolo(tmp_path, skeleton=COCO17)
    np.testing.assert_allclose(record.keypoints[..., :2], poses.keypoints, atol=1e-3)
    np.testing.assert_allclose(record.boxes, poses.boxes, atol=1e-3)
    assert (record.keypoints[..., 2] == 2).all()


def test_yolo_leaves_out_what_a_label_cannot_hold(tmp_path):
    poses = some_poses(1, source="a.jpg", boxes=[[-50, 10, 400, 100]])
    poses.keypoints[0, :3] = [(np.nan, 1), (-3, 5), (5, 241)]
    poses.keypoint_scores[0, 3:] = 0.9
    poses.keypoint_scores[0, 4] = 0.1
    with results.YoloWriter(tmp_path, min_keypoint_score=0.2) as writer:
        writer.add(poses)
        writer.add(Poses.empty(COCO17, (4, 4)))
    [line] = numbers(tmp_path / "a.txt")
    triples = np.array(line[5:]).reshape(-1, 3)
    assert (triples[[0, 1, 2, 4]] == 0).all()
    assert (triples[[3, 5], 2] == 2).all()
    assert line[1:3] == [0.5, pytest.approx(55 / 240, abs=1e-6)]
    assert line[3] == 1
    assert (tmp_path / "picture.txt").read_text() == ""
    with (
        results.YoloWriter(tmp_path) as writer,
        pytest.raises(ValueError, match="size of this picture is not known"),
    ):
        writer.add(Poses.empty())


def test_yolo_takes_visibility(tmp_path):
    marks = np.resize([0, 1, 2], (1, 17))
    results.save(tmp_path, some_poses(1, source="a.jpg", visibility=marks), "yolo")
    [line] = numbers(tmp_path / "a.txt")
    np.testing.assert_array_equal(line[7::3], marks[0])


def test_names_are_never_used_twice_and_frames_are_numbered(tmp_path):
    pictures = [some_poses(1, s, source=name) for s, name in enumerate(("x/a.jpg", "y/a.jpg", "a.png"))]
    results.save(tmp_path / "yolo", pictures, "yolo")
    assert sorted(p.name for p in (tmp_path / "yolo").iterdir()) == ["a-2.txt", "a-3.txt", "a.txt"]
    results.save(tmp_path / "open", [some_poses(1, frame=f) for f in (0, 12)], "openpose")
    assert sorted(p.name for p in (tmp_path / "open").iterdir()) == [
        "clip_000000000000_keypoints.json",
        "clip_000000000012_keypoints.json",
    ]


def test_openpose_body_25(tmp_path):
    poses = some_poses(2, ids=[5, -1])
    poses.keypoints[1, COCO17.keypoints.index("left_shoulder")] = np.nan
    results.save(tmp_path, poses, "openpose")
    document = json.loads((tmp_path / "clip_keypoints.json").read_text())
    assert [p["person_id"] for p in document["people"]] == [[5], [-1]]
    first, second = (np.array(p["pose_keypoints_2d"]).reshape(25, 3) for p in document["people"])
    whole = poses.to_numpy()
    index = COCO17.keypoints.index
    # numbers of OpenPose's documentation
    for place, name in {0: "nose", 2: "right_shoulder", 7: "left_wrist", 9: "right_hip", 14: "left_ankle",
                        15: "right_eye", 18: "left_ear"}.items():  # fmt: skip
        np.testing.assert_allclose(first[place], whole[0, index(name)], atol=1e-4)
    shoulders = whole[0, [index("left_shoulder"), index("right_shoulder")]]
    np.testing.assert_allclose(first[1], [*shoulders[:, :2].mean(0), shoulders[:, 2].min()], atol=1e-4)
    hips = whole[0, [index("left_hip"), index("right_hip")]]
    np.testing.assert_allclose(first[8, :2], hips[:, :2].mean(0), atol=1e-4)
    assert (first[19:] == 0).all()
    assert (second[[1, 5]] == 0).all()


def test_openpose_coco_18_and_other_skeletons(tmp_path):
    with results.OpenPoseWriter(tmp_path, CROWDPOSE14, layout="coco_18") as writer:
        poses = some_poses(1, skeleton=CROWDPOSE14)
        writer.add(poses)
    [person] = json.loads((tmp_path / "clip_keypoints.json").read_text())["people"]
    triples = np.array(person["pose_keypoints_2d"]).reshape(18, 3)
    np.testing.assert_allclose(triples[1], poses.points("neck")[0], atol=1e-4)
    np.testing.assert_allclose(triples[13], poses.points("left_ankle")[0], atol=1e-4)
    assert (triples[[0, 14, 15, 16, 17]] == 0).all()
    with results.OpenPoseWriter(tmp_path, MPII16) as writer:
        writer.add(Poses.empty(MPII16))
    assert json.loads((tmp_path / "picture_keypoints.json").read_text())["people"] == []
    with pytest.raises(ValueError, match="unknown layout 'body'"):
        results.OpenPoseWriter(tmp_path, layout="body")


def test_names_that_are_too_long_lose_their_end(tmp_path):
    long = replace(some_poses(), source="人" * 83 + ".jpg")
    with results.OpenPoseWriter(tmp_path) as writer:
        writer.add(long)
        writer.add(long)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "人" * 79 + "-2_keypoints.json", "人" * 80 + "_keypoints.json",
    ]  # fmt: skip
