"""Files, folders, patterns and lists of files."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from poise.data.coco import IMAGE_SUFFIXES
from poise.predict.sources import each_picture, find_all, find_pictures, natural_key, to_image, unique


@pytest.fixture
def folder(tmp_path):
    for name in ("img10.jpg", "img2.JPG", "img1.png", "notes.txt", "data.json", "b/deep.webp", "b/c/deeper.bmp"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "notes.txt").write_text("# pictures\n\nimg2.JPG\n b/deep.webp \n")
    return tmp_path


def names(paths, folder):
    return [p.relative_to(folder).as_posix() for p in paths]


def test_a_folder_gives_its_pictures_as_people_count(folder):
    assert names(find_pictures(folder), folder) == ["img1.png", "img2.JPG", "img10.jpg"]


def test_hidden_files_are_no_pictures_of_a_folder(folder):
    (folder / "._img1.png").write_bytes(b"x")
    (folder / ".img3.jpg").write_bytes(b"x")
    assert names(find_pictures(folder), folder) == ["img1.png", "img2.JPG", "img10.jpg"]
    assert names(find_pictures(f"{folder}/*"), folder) == ["img1.png", "img2.JPG", "img10.jpg"]
    assert find_pictures(folder / ".img3.jpg") == [folder / ".img3.jpg"]
    assert names(find_pictures(f"{folder}/.img*"), folder) == [".img3.jpg"]


def test_every_format_that_can_be_read_and_is_common(folder):
    (folder / "b.jfif").write_bytes(b"x")
    (folder / "c.AVIF").write_bytes(b"x")
    (folder / "d.heic").write_bytes(b"x")
    more = ["b.jfif", "c.AVIF"] if "avif" in features.modules and features.check("avif") else ["b.jfif"]
    assert names(find_pictures(folder), folder) == [*more, "img1.png", "img2.JPG", "img10.jpg"]
    guide = (Path(__file__).parents[2] / "docs/guides/predict.md").read_text(encoding="utf-8")
    [listed] = [line for line in guide.splitlines() if line.startswith("Folders hold pictures in")]
    assert {text for text in listed.split("`") if text.startswith(".")} - {".avif", "."} == IMAGE_SUFFIXES - {".avif"}


@pytest.mark.skipif(".avif" not in IMAGE_SUFFIXES, reason="this Pillow cannot read AVIF")
def test_avif_is_read(tmp_path):
    picture = np.full((24, 32, 3), (200, 40, 90), np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.avif", quality=95)
    image = to_image(tmp_path / "a.avif")
    assert image.shape == (24, 32, 3)
    assert np.abs(image.astype(int) - picture).max() < 12


def test_patterns(folder):
    assert names(find_pictures(f"{folder}/img*"), folder) == ["img1.png", "img2.JPG", "img10.jpg"]
    assert names(find_pictures(f"{folder}/*.jpg"), folder) == ["img10.jpg"]
    assert names(find_pictures(f"{folder}/b/**/*"), folder) == ["b/c/deeper.bmp", "b/deep.webp"]


def test_a_file_is_itself_even_without_a_suffix(folder):
    (folder / "odd").write_bytes(b"x")
    (folder / "what[1].jpg").write_bytes(b"x")
    assert find_pictures(folder / "odd") == [folder / "odd"]
    assert find_pictures(str(folder / "what[1].jpg")) == [folder / "what[1].jpg"]


def test_a_text_file_lists_files_beside_it(folder):
    assert names(find_pictures(folder / "notes.txt"), folder) == ["img2.JPG", "b/deep.webp"]


def test_several_sources_each_file_once(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = find_all(["img10.jpg", str(folder), "b/../img1.png"])
    assert found[0] == Path("img10.jpg")
    assert [p.name for p in found] == ["img10.jpg", "img1.png", "img2.JPG"]
    assert find_all([]) == []


def test_links_to_one_file_count_once(folder):
    os.symlink(folder / "img1.png", folder / "alias.png")
    assert len(unique([folder / "alias.png", folder / "img1.png"])) == 1


def test_natural_order():
    shuffled = ["b1x10", "a10", "b", "a2", "A10b", "b1x2", "a1"]
    order = ["a1", "a2", "a10", "A10b", "b", "b1x2", "b1x10"]
    assert sorted(shuffled, key=lambda n: natural_key(Path(n))) == order


def test_errors_name_the_source(folder):
    (folder / "empty").mkdir()
    (folder / "empty.txt").write_text("# nothing\n")
    (folder / "binary.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg does not exist"):
        find_pictures(folder / "nowhere.jpg")
    with pytest.raises(FileNotFoundError, match=r"no picture matches .*\*\.gif"):
        find_pictures(f"{folder}/*.gif")
    with pytest.raises(ValueError, match=r"empty has no pictures \(.*\.jpg"):
        find_pictures(folder / "empty")
    with pytest.raises(ValueError, match=r"empty\.txt lists no pictures"):
        find_pictures(folder / "empty.txt")
    with pytest.raises(ValueError, match=r"binary\.txt is not a list"):
        find_pictures(folder / "binary.txt")


def test_one_or_many():
    array = np.zeros((4, 5, 3), np.uint8)
    assert list(each_picture("a.jpg")) == ["a.jpg"]
    assert list(each_picture(b"bytes")) == [b"bytes"]
    assert len(list(each_picture(array))) == 1
    assert len(list(each_picture(np.stack([array] * 3)))) == 3
    assert len(list(each_picture([array, "b.jpg"]))) == 2
    assert len(list(each_picture(p for p in ("a", "b")))) == 2


def test_tensors_become_pictures():
    tensor = torch.arange(60, dtype=torch.uint8).reshape(3, 4, 5)
    image = to_image(tensor)
    assert image.shape == (4, 5, 3)
    np.testing.assert_array_equal(image[..., 1], np.arange(20, 40).reshape(4, 5))
    np.testing.assert_array_equal(to_image(tensor / 255.0), image)
    assert to_image(tensor[:1]).shape == (4, 5, 3)
    with pytest.raises(ValueError, match=r"0\.\.1"):
        to_image(tensor.float())
