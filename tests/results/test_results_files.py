"""Poses in files: what is written is what is read, and half a file is never left."""

import json
from dataclasses import replace

import numpy as np
import pytest
from poses_for_files import CUSTOM, a_video, assert_same, some_poses

from poise import results
from poise.evaluate.tracking import tracking_scores
from poise.skeletons import COCO17, CROWDPOSE14, LSP14
from poise.types import Poses

SUFFIXES = [".json", ".csv"]


@pytest.mark.parametrize("skeleton", [COCO17, CROWDPOSE14, LSP14], ids=lambda s: s.name)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_of_a_video(tmp_path, suffix, skeleton):
    video = a_video(skeleton)
    results.save(tmp_path / f"deep/poses{suffix}", iter(video))
    assert_same(results.load(tmp_path / f"deep/poses{suffix}"), video)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_people_of_a_followed_video_can_be_picked_when_it_is_read_back(tmp_path, suffix):
    results.save(tmp_path / f"p{suffix}", a_video())
    read = results.load(tmp_path / f"p{suffix}")
    assert [len(poses.filter(ids=[1, 2])) for poses in read] == [0, 0, 2]
    assert tracking_scores(read, read).truth == 5
    results.save(tmp_path / f"n{suffix}", [Poses.empty()] * 2)
    assert [len(poses.filter(ids=[1])) for poses in results.load(tmp_path / f"n{suffix}")] == [0, 0]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_pose_without_an_id_says_that_nobody_is_followed(tmp_path, suffix):
    first, second, third = a_video()
    mixed = [replace(first, ids=None), second, third]
    results.save(tmp_path / f"p{suffix}", mixed)
    assert_same(results.load(tmp_path / f"p{suffix}"), [replace(p, ids=None) if p is second else p for p in mixed])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_of_pictures_without_ids_size_or_name(tmp_path, suffix):
    pictures = [some_poses(1, s, image_size=None, source=None) for s in range(3)]
    results.save(tmp_path / f"p{suffix}", pictures)
    assert_same(results.load(tmp_path / f"p{suffix}"), pictures)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_round_trip_of_one_picture_and_of_none(tmp_path, suffix):
    path = tmp_path / f"p{suffix}"
    results.save(path, some_poses(2))
    assert_same(results.load(path), [some_poses(2)])
    results.save(path, [])
    assert results.load(path, COCO17) == []
    results.save(path, [Poses.empty(COCO17, (3, 4))] * 2)
    assert_same(results.load(path), [Poses.empty(COCO17, (3, 4))] * 2)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_is_not_known_stays_unknown(tmp_path, suffix):
    poses = some_poses(2)
    poses.keypoints[0, 3] = np.nan
    poses.keypoint_scores[0, 3] = 0
    results.save(tmp_path / f"p{suffix}", poses)
    assert_same(results.load(tmp_path / f"p{suffix}"), [poses])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_skeleton_that_is_not_built_in(tmp_path, suffix):
    video = a_video(CUSTOM)
    path = tmp_path / f"p{suffix}"
    results.save(path, video)
    assert_same(results.load(path, CUSTOM), video)
    if suffix == ".json":
        assert_same(results.load(path), video)
    else:
        with pytest.raises(ValueError, match="no built-in skeleton's; name the skeleton"):
            results.load(path)
        with pytest.raises(ValueError, match="not the keypoints of skeleton 'lsp14'"):
            results.load(path, LSP14)


def test_names_that_need_quoting(tmp_path):
    poses = some_poses(1, source='a "b", c\n\u00e9.jpg')
    for suffix in SUFFIXES:
        results.save(tmp_path / f"p{suffix}", poses)
        assert_same(results.load(tmp_path / f"p{suffix}"), [poses])


def test_of_several_categories_the_people_count(tmp_path):
    """The same rule as for annotations: of those with keypoints, the one called person."""
    path = tmp_path / "p.json"
    results.save(path, some_poses(2))
    document = json.loads(path.read_text())
    document["categories"].insert(0, {"id": 2, "name": "dog", "keypoints": ["snout", "tail"]})
    document["annotations"].append({"id": 3, "image_id": 1, "category_id": 2, "keypoints": [1, 2, 2, 3, 4, 2]})
    path.write_text(json.dumps(document))
    assert_same(results.load(path), [some_poses(2)])
    document["categories"][1]["name"] = "cat"
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=r"cannot tell which category \(dog, cat\)"):
        results.load(path)


def test_a_list_of_results_is_read_too(tmp_path):
    poses = some_poses(2)
    path = tmp_path / "r.json"
    poses.save_json(path, image_id=7)
    assert_same(results.load(path), [replace(poses, image_size=None, source="7")])


def test_coco_json_is_what_coco_tools_read(tmp_path):
    pytest.importorskip("pycocotools")
    from pycocotools.coco import COCO

    path = tmp_path / "poses.json"
    results.save(path, a_video())
    coco = COCO(str(path))
    assert len(coco.getImgIds()) == 3
    assert [len(coco.getAnnIds(imgIds=i)) for i in (1, 2, 3)] == [2, 0, 3]
    assert coco.loadCats([1])[0]["keypoints"] == list(COCO17.keypoints)
    assert coco.loadCats([1])[0]["skeleton"][0] == [16, 14]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not valid JSON"),
        ("{}", "does not hold poses in COCO's form: KeyError 'images'"),
        ("[1]", "does not hold poses"),
        ("7", "does not hold poses"),
        ('{"images": [], "categories": [], "annotations": []}', r"cannot tell which category \(there are none\)"),
        ('[{"image_id": 1, "id": 5, "keypoints": [1, 2]}]', "annotation 5 has 2 numbers for keypoints; .* takes 51"),
    ],
)
def test_other_json_is_named(tmp_path, text, words):
    path = tmp_path / "odd.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        results.load(path)


def test_an_annotation_of_no_image_is_named(tmp_path):
    path = tmp_path / "p.json"
    results.save(path, some_poses(1))
    document = json.loads(path.read_text())
    document["annotations"][0]["image_id"] = 9
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="annotation 1 is of image 9, which is not there"):
        results.load(path)


def test_other_tables_are_named(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="is not a table of poses: its first line must be picture,source"):
        results.load(path)
    results.save(path, some_poses(1))
    path.write_text(path.read_text().replace("0,clip", "zero,clip"))
    with pytest.raises(ValueError, match=r"t\.csv, line 2: invalid literal .*'zero'"):
        results.load(path)
    for suffix in SUFFIXES:
        with pytest.raises(FileNotFoundError, match=rf"nowhere\{suffix} does not exist"):
            results.load(tmp_path / f"nowhere{suffix}")
    with pytest.raises(ValueError, match=r"not from '\.txt'"):
        results.load(tmp_path / "a.txt")


@pytest.mark.parametrize("form", ["coco", "csv", "parquet"])
def test_an_error_leaves_no_file_and_ctrl_c_a_whole_one(tmp_path, form):
    path = tmp_path / "out"
    path.write_text("before")

    def write(error):
        with results.open_writer(path, COCO17, form) as writer:
            writer.add(some_poses(2))
            raise error

    with pytest.raises(RuntimeError, match="stop"):
        write(RuntimeError("stop"))
    assert path.read_text() == "before"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    with pytest.raises(KeyboardInterrupt):
        write(KeyboardInterrupt())
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    if form != "parquet":
        path.rename(path := path.with_suffix(".json" if form == "coco" else ".csv"))
        assert_same(results.load(path), [some_poses(2)])


def test_writers_refuse_what_does_not_fit(tmp_path):
    with results.open_writer(tmp_path / "p.json") as writer:
        with pytest.raises(ValueError, match="'coco17'; these have 'lsp14'"):
            writer.add(Poses.empty(LSP14))
        writer.close()
        writer.close()
        with pytest.raises(ValueError, match="is finished"):
            writer.add(Poses.empty())
    assert_same(results.load(tmp_path / "p.json"), [])
    with pytest.raises(ValueError, match="unknown format 'coca' of poses; did you mean 'coco'"):
        results.save(tmp_path / "p.json", [], "coca")
    with pytest.raises(ValueError, match="no format goes with this suffix"):
        results.save(tmp_path / "p", [])


def test_a_long_video_waits_in_no_memory(tmp_path):
    """The annotations of 400 frames are far more than what is held while they are written."""
    import tracemalloc

    poses = some_poses(4, frame=0)
    with results.open_writer(tmp_path / "p.json") as writer:
        writer.add(poses)
        tracemalloc.start()
        for _ in range(400):
            writer.add(poses)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (tmp_path / "p.json").stat().st_size > 600_000
    assert peak < 200_000


def test_a_name_that_is_no_utf_8(tmp_path):
    """A file name in Latin-1, as Python gives it, beside one that is in UTF-8."""
    poses = [replace(some_poses(), source=name) for name in ("gr\udcfcn.jpg", "grün.jpg")]
    results.save(tmp_path / "poses.json", poses)
    assert [p.source for p in results.load(tmp_path / "poses.json")] == ["gr\udcfcn.jpg", "grün.jpg"]
    assert "grün.jpg" in (tmp_path / "poses.json").read_text(encoding="utf-8")
    results.save(tmp_path / "poses.csv", poses)
    assert [p.source for p in results.load(tmp_path / "poses.csv")] == ["gr\\udcfcn.jpg", "grün.jpg"]
