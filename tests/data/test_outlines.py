import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from poise.data.coco import read_coco
from poise.data.outlines import built_in, category_outline, find_skeleton, outline_beside, read_outline
from poise.skeletons import COCO17, CROWDPOSE14, MPII16, Skeleton

EMPTY = np.zeros((0, 2, 3))
TEXT = """
keypoints: [snout, left_ear, right_ear, tail]
edges: [[snout, left_ear], [0, 2], [snout, tail]]
sigmas: {snout: 0.03, left_ear: 0.04, right_ear: 0.04, tail: 0.09}
"""


def write(folder: Path, text: str, name: str = "dog.skeleton.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_file_says_all(tmp_path):
    outline = read_outline(write(tmp_path, TEXT))
    edges = ((0, 1), (0, 2), (0, 3))
    expected = Skeleton("dog", ("snout", "left_ear", "right_ear", "tail"), edges, ((1, 2),), (0.03, 0.04, 0.04, 0.09))
    assert outline.skeleton() == expected
    more = TEXT + "name: hound\nflip_pairs: [[right_ear, left_ear]]\n"
    hound = read_outline(write(tmp_path, more)).skeleton()
    assert (hound.name, hound.flip_pairs) == ("hound", ((2, 1),))


def test_a_file_without_sigmas(tmp_path, caplog):
    outline = read_outline(write(tmp_path, "keypoints: [snout, wrist]"))
    assert (outline.sigmas, outline.edges, outline.flip_pairs) == (None, (), ())
    with pytest.raises(ValueError, match=r'dog\.skeleton\.yaml.*"sigmas": \[2 numbers\]'):
        outline.skeleton()
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        skeleton = outline.skeleton(lambda: (EMPTY, []))
    assert skeleton.sigmas == (0.06, 0.062)
    assert "estimated: snout 0.060 (typical), wrist 0.062 (coco17 left_wrist)" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("keypoints: snout", "list of names under keypoints"),
        ("[1, 2]", "list of names under keypoints"),
        ("keypoints: [a\n", "not valid YAML"),
        ("keypoints: [a, b]\nsigma: [1, 2]", "unknown key 'sigma'; did you mean 'sigmas'"),
        ("keypoints: [a, b]\nedges: [[a, c]]", "edges holds 'c', which is no keypoint"),
        ("keypoints: [a, b]\nedges: [[0, 2]]", "edges holds 2"),
        ("keypoints: [a, b]\nedges: [[a]]", r"edges holds \['a'\], which is not a pair"),
        ("keypoints: [a, b]\nedges: ab", "edges must be a list"),
        ("keypoints: [a, b]\nsigmas: {a: 1}", r"sigmas lack \['b'\]"),
        ("keypoints: [a, b]\nsigmas: [x, y]", "sigmas must be 2 numbers"),
        ("keypoints: [a, b]\nsigmas: [1]", "2 keypoints but 1 sigmas"),
        ("keypoints: [a, a]\nsigmas: [1, 1]", "names a keypoint twice"),
        ("keypoints: [a, b]\nflip_pairs: [[a, b], [b, a]]\nsigmas: [1, 1]", "two flip pairs"),
    ],
)
def test_bad_files(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"dog\.skeleton\.yaml.*{message}") as caught:
        read_outline(write(tmp_path, text)).skeleton()
    assert "\n" not in str(caught.value)


def test_bad_outlines_are_refused_before_anything_is_estimated(tmp_path, caplog):
    outline = read_outline(write(tmp_path, "keypoints: [a, a]"))
    with pytest.raises(ValueError, match="names a keypoint twice"):
        outline.skeleton(lambda: (EMPTY, []))
    assert not caplog.records


def test_names(tmp_path):
    assert find_skeleton("mpii16") is MPII16
    assert find_skeleton(str(write(tmp_path, TEXT))).keypoints[0] == "snout"
    with pytest.raises(ValueError, match=r"unknown skeleton 'coco'; did you mean .*YAML"):
        find_skeleton("coco")
    with pytest.raises(FileNotFoundError, match=r"no\.yaml"):
        find_skeleton(tmp_path / "no.yaml")


def test_built_in_skeletons_by_their_keypoints():
    assert built_in(COCO17.keypoints) is COCO17
    assert built_in([*CROWDPOSE14.keypoints[:12], "head", "neck"]) is CROWDPOSE14
    assert built_in(COCO17.keypoints[:5]) is None
    with pytest.raises(ValueError, match="category 'person'"):
        category_outline({"keypoints": ["a"], "skeleton": [3]}, "x.json")


def test_given_sigmas_win_over_those_of_a_built_in_skeleton(tmp_path):
    names = [*CROWDPOSE14.keypoints[:12], "head", "neck"]
    category = {"name": "person", "keypoints": names, "skeleton": [[1, 2]]}
    for sigmas in (None, list(CROWDPOSE14.sigmas), [s * 1.00001 for s in CROWDPOSE14.sigmas]):
        assert category_outline(category | {"sigmas": sigmas}, "x.json").skeleton() is CROWDPOSE14
    given = category_outline(category | {"sigmas": [0.1] * 14}, "x.json").skeleton()
    assert given == replace(CROWDPOSE14, name="person", sigmas=(0.1,) * 14)
    text = f"keypoints: [{', '.join(MPII16.keypoints)}]\n"
    assert read_outline(write(tmp_path, text)).skeleton() is MPII16
    own = read_outline(write(tmp_path, text + f"sigmas: {[0.2] * 16}\n"))
    assert own.skeleton() == replace(MPII16, name="dog", sigmas=(0.2,) * 16)
    short = read_outline(write(tmp_path, text + "sigmas: [0.2]\n"))
    for refused in (short.skeleton, short.check):
        with pytest.raises(ValueError, match=r"dog\.skeleton\.yaml.*16 keypoints but 1 sigmas"):
            refused()


def test_beside_annotations(tmp_path):
    annotations = tmp_path / "dog.json"
    assert outline_beside(annotations) is None
    write(tmp_path, "keypoints: [a]", "skeleton.yaml")
    assert outline_beside(annotations).keypoints == ("a",)
    write(tmp_path, TEXT)
    assert outline_beside(annotations).keypoints[0] == "snout"


def test_coco_files_take_what_lies_beside_them(tmp_path, caplog):
    Image.new("RGB", (8, 6)).save(tmp_path / "a.png")
    person = {"id": 1, "image_id": 1, "keypoints": [1, 2, 2, 3, 4, 2], "bbox": [1, 2, 2, 2]}
    content = {"images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}], "annotations": [person]}
    path = tmp_path / "dog.json"
    path.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "dog", "keypoints": ["snout", "wrist"]}]}))
    with caplog.at_level(logging.WARNING):
        assert read_coco(path, tmp_path).skeleton.sigmas == (0.06, 0.062)
    assert "estimated" in caplog.text
    write(tmp_path, "keypoints: [one, two]\nsigmas: [0.1, 0.2]")
    assert read_coco(path, tmp_path).skeleton.keypoints == ("one", "two")
    path.write_text(json.dumps(content))
    assert read_coco(path, tmp_path).skeleton.sigmas == (0.1, 0.2), "no category is needed then"
    write(tmp_path, TEXT)
    with pytest.raises(ValueError, match="annotation 1: keypoints"):
        read_coco(path, tmp_path)
