import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from poise.data.images import ImageError, image_size, read_image


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and holds hardly a pixel."""
    chunks = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"few")
    packed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
def test_lossless_files_give_their_pixels(picture: np.ndarray, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "picture"
    Image.fromarray(picture).save(path, kind)
    result = read_image(path)
    assert np.array_equal(result, picture)
    assert np.array_equal(read_image(str(path)), picture)
    assert np.array_equal(read_image(path.read_bytes()), picture)
    assert result.flags.writeable
    assert result.flags.c_contiguous
    assert image_size(path) == (7, 5)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(picture: np.ndarray, orientation: int, kind: str) -> None:
    image = Image.fromarray(picture)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(image, kind, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as opened:
        expected = np.array(ImageOps.exif_transpose(opened))
    result = read_image(data)
    assert np.array_equal(result, expected)
    assert image_size(data) == expected.shape[:2]
    if kind != "JPEG":
        turned = orientation >= 5
        assert result.shape == ((5, 7, 3) if turned else (7, 5, 3))
        assert np.array_equal(np.sort(result.reshape(-1)), np.sort(picture.reshape(-1)))


def test_orientation_can_be_left_alone(picture: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.fromarray(picture), "PNG", exif=exif)
    assert np.array_equal(read_image(data, upright=False), picture)
    assert not np.array_equal(read_image(data), picture)


def test_damaged_exif_is_no_obstacle(picture: np.ndarray) -> None:
    data = encoded(Image.fromarray(picture), "PNG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff")
    assert np.array_equal(read_image(data), picture)


def test_sixteen_bits_are_divided_by_257() -> None:
    values = np.array([[0, 128, 129, 257], [32767, 32768, 65406, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)
    for kind in ("PNG", "TIFF"):
        result = read_image(encoded(Image.fromarray(values), kind))
        assert np.array_equal(result, np.repeat(expected[..., None], 3, 2))
    assert np.array_equal(read_image(values)[..., 0], expected)
    assert read_image(np.full((2, 2, 3), 65535, np.uint16)).tolist() == np.full((2, 2, 3), 255).tolist()


def test_thirty_two_bit_pictures() -> None:
    whole = Image.fromarray(np.array([[0, 257, 65535]], np.int32))
    assert read_image(whole)[0, :, 0].tolist() == [0, 1, 255]
    with pytest.raises(ImageError, match=r"0\.\.70000"):
        read_image(Image.fromarray(np.array([[0, 70000]], np.int32)))
    assert read_image(Image.fromarray(np.array([[0.0, 1.0]], np.float32)))[0, :, 0].tolist() == [0, 255]


def test_transparency_lies_over_white() -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 51]]], np.uint8)
    expected = [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]
    assert read_image(rgba).tolist() == expected
    assert read_image(encoded(Image.fromarray(rgba), "PNG")).tolist() == expected
    assert read_image(Image.new("LA", (1, 1), (0, 0))).tolist() == [[[255, 255, 255]]]


@pytest.mark.parametrize("transparency", [1, b"\xff\x00"])
def test_palette_with_transparency(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    assert read_image(encoded(image, "PNG")).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    see_through = encoded(image, "PNG", transparency=transparency)
    assert read_image(see_through).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_rgb_with_a_transparent_colour() -> None:
    image = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    data = encoded(image, "PNG", transparency=(4, 5, 6))
    assert read_image(data).tolist() == [[[1, 2, 3], [255, 255, 255]]]


def test_other_modes() -> None:
    assert read_image(Image.new("1", (2, 1), 1)).tolist() == [[[255] * 3] * 2]
    assert read_image(Image.new("L", (1, 1), 9)).tolist() == [[[9, 9, 9]]]
    cmyk = Image.new("CMYK", (2, 2), (0, 255, 255, 0))
    assert read_image(cmyk).tolist() == [[[255, 0, 0]] * 2] * 2
    assert np.abs(read_image(encoded(cmyk, "JPEG")).astype(int) - [255, 0, 0]).max() <= 2


def test_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (3, 2), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data).tolist() == [[[255, 0, 0]] * 3] * 2


def test_arrays(picture: np.ndarray) -> None:
    result = read_image(picture)
    assert np.array_equal(result, picture)
    assert result is not picture
    assert np.array_equal(read_image(picture[::-1, ::2]), picture[::-1, ::2])
    grey = picture[..., 0]
    for source in (grey, grey[..., None], grey / np.float64(255), (grey / 255).astype(np.float32)):
        assert np.array_equal(read_image(source), np.repeat(grey[..., None], 3, 2))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2), np.uint8), r"shape \(2, 2, 2\)"),
        (np.zeros((1, 3, 2, 2), np.uint8), r"shape \(1, 3, 2, 2\)"),
        (np.zeros(4, np.uint8), r"shape \(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "no pixel"),
        (np.zeros((2, 2), np.int64), "dtype int64"),
        (np.zeros((2, 2), bool), "dtype bool"),
        (np.full((2, 2), 7.0), r"7\.0\.\.7\.0"),
        (np.full((2, 2), np.nan), r"0\.\.1"),
    ],
)
def test_unusable_arrays_are_named(array: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_image(array)


def test_missing_file(tmp_path: Path) -> None:
    for read in (read_image, image_size):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
            read(tmp_path / "nowhere.jpg")


def test_not_a_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="folder"):
        read_image(tmp_path)
    for name, content in (("text.jpg", b"no picture"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=name):
            read_image(tmp_path / name)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF"])
def test_cut_short(kind: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    path = tmp_path / f"half.{kind.lower()}"
    path.write_bytes(encoded(Image.fromarray(noise), kind)[:-1500])
    with pytest.raises(ImageError, match=r"half\.") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_too_large_is_refused_before_it_is_decoded() -> None:
    data = encoded(Image.new("L", (100, 90)), "PNG")
    with pytest.raises(ImageError, match=r"100x90 pixels, more than the limit of 8,999"):
        read_image(data, max_pixels=8999)
    assert read_image(data, max_pixels=9000).shape == (90, 100, 3)
    with pytest.raises(ImageError, match="too large"):
        read_image(png_header(100_000, 100_000))
    with pytest.raises(ImageError, match="cut short"):  # a size of which Pillow alone would warn
        read_image(png_header(10_000, 10_000))


def test_a_pillow_image_is_left_as_it_was(picture: np.ndarray) -> None:
    image = Image.fromarray(picture)
    read_image(image)[:] = 0
    assert np.array_equal(np.array(image), picture)
