"""Files whose names begin with a dot are no pictures of a folder: macOS puts ``._a.png`` beside ``a.png``."""

from pathlib import Path

import numpy as np
from PIL import Image

from poise.data.coco import read_folder
from poise.data.yolo import _listed
from poise.predict.frames import find_sources
from poise.skeletons import COCO17


def test_they_are_left_out(tmp_path):
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "._a.png").write_bytes(b"no picture")
    assert [record.path.name for record in read_folder(tmp_path, COCO17)] == ["a.png"]
    assert [path.name for path in _listed(tmp_path)] == ["a.png"]


def test_poise_predict_leaves_them_out_too(tmp_path):
    for name in ("._a.jpg", ".b.mp4", "c.jfif", "d.png"):
        (tmp_path / name).write_bytes(b"x")
    assert [Path(source.name).name for source in find_sources(str(tmp_path))] == ["c.jfif", "d.png"]
