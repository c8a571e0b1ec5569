"""Pictures from files, bytes, arrays and Pillow images as (H, W, 3) uint8 RGB, upright, or a one-line error."""

from __future__ import annotations

import io
import threading
import warnings
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from poise.types import ImageArray

ImageSource = str | Path | bytes | npt.NDArray[np.generic] | Image.Image
"""A file name, an encoded picture, an array as `image_from_array` takes it, or a Pillow image."""

MAX_PIXELS = 178_956_970
"""Largest picture that is decoded by default: where Pillow, too, refuses."""

_ORIENTATION_TAG = 0x0112
_OPEN_LOCK = threading.Lock()


class ImageError(ValueError):
    """A picture that cannot be used; the message has one line and names the picture."""


def read_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, upright: bool = True) -> ImageArray:
    """A picture as (H, W, 3) uint8 RGB.

    Transparent pixels are laid over white, 16-bit values are divided by 257, palettes, CMYK and grey are converted,
    and of an animation the first frame is taken. The EXIF orientation is applied, unless ``upright`` is false.

    Args:
        source: path, encoded bytes, array (see `image_from_array`) or Pillow image.
        max_pixels: a picture with more pixels is refused, before it is decoded.
        upright: apply the EXIF orientation.

    Raises:
        FileNotFoundError: there is no such file.
        ImageError: it is a folder, not a picture, damaged, cut short, empty or too large.
        ValueError: an array of another shape, type or range.
    """
    if isinstance(source, np.ndarray):
        return image_from_array(source)
    if isinstance(source, Image.Image):
        return _decode(source, "picture", max_pixels, upright)
    with _open(source) as image:
        return _decode(image, _name(source), max_pixels, upright)


def image_size(source: str | Path | bytes) -> tuple[int, int]:
    """(height, width) of a picture as `read_image` would return it, from its header alone; errors as there."""
    with _open(source) as image:
        width, height = image.size
        turned = _orientation(image) >= 5 and image.format != "TIFF"
    return (width, height) if turned else (height, width)


def image_from_array(array: npt.NDArray[np.generic]) -> ImageArray:
    """(H, W, 3) uint8 RGB from an array.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA of uint8, uint16 (0..65535) or float (0..1).

    Raises:
        ValueError: another shape, type or range.
    """
    shape, kind = array.shape, array.dtype
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise ValueError(f"picture array has shape {shape}; expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if 0 in shape:
        raise ValueError(f"picture array has shape {shape}, which holds no pixel")
    if kind == np.uint8:
        values = array.astype(np.uint8, copy=False)
    elif kind == np.uint16:
        values = _eight_bit(array)
    elif np.issubdtype(kind, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"picture array of {kind} must lie in 0..1; its values run {array.min()}..{array.max()}")
        values = np.rint(array.astype(np.float32) * 255).astype(np.uint8)
    else:
        raise ValueError(f"picture array has dtype {kind}; expected uint8, uint16 or float in 0..1")
    return _to_rgb(values)


def _name(source: str | Path | bytes) -> str:
    return "picture" if isinstance(source, bytes) else str(source)


def _open(source: str | Path | bytes) -> Image.Image:
    """The header of a picture; nothing is decoded yet."""
    name = _name(source)
    if not isinstance(source, bytes):
        source = Path(source)
        if source.is_dir():
            raise ImageError(f"{name} is a folder, not a picture")
        if not source.exists():
            raise FileNotFoundError(f"picture {name} does not exist")
    try:
        # Pillow warns of pictures above half of its limit. The filter is process-wide, hence the lock.
        with _OPEN_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source)
    except Image.DecompressionBombError:
        raise ImageError(f"{name} has more than {MAX_PIXELS:,} pixels, too large to decode") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name} is not a picture in a known format") from None
    except PermissionError:
        raise ImageError(f"{name} may not be read: permission denied") from None
    except Exception as error:  # decoders of damaged files raise nearly anything
        raise ImageError(f"{name} is not a readable picture: {_one_line(error)}") from None


def _decode(image: Image.Image, name: str, max_pixels: int, upright: bool) -> ImageArray:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{name} has {width}x{height} pixels, more than the limit of {max_pixels:,}")
    if width < 1 or height < 1:
        raise ImageError(f"{name} is empty ({width}x{height} pixels)")
    try:
        image.load()
        # TIFF is turned by Pillow while it is loaded, and then carries no orientation any more
        orientation = _orientation(image) if upright else 1
        return _turn(_pixels(image), orientation)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{name} cannot be decoded, it may be cut short: {_one_line(error)}") from None


def _pixels(image: Image.Image) -> ImageArray:
    """(H, W, 3) uint8 RGB of any Pillow mode."""
    mode = image.mode
    if mode.startswith("I;16"):
        return _to_rgb(_eight_bit(np.asarray(image)))
    if mode == "I":
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise ImageError(f"its values run {values.min()}..{values.max()}, more than 16 bits; convert it first")
        return _to_rgb(_eight_bit(values))
    if mode == "F":
        return image_from_array(np.asarray(image))
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _to_rgb(np.array(image.convert("RGBA")))
    return np.array(image if mode == "RGB" else image.convert("RGB"))


def _eight_bit(values: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _to_rgb(values: npt.NDArray[np.uint8]) -> ImageArray:
    """(H, W, 3) of grey, RGB or RGBA; the result is contiguous, writable and not the input."""
    if values.ndim == 2 or values.shape[2] == 1:
        return np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2)
    if values.shape[2] == 3:
        return np.array(values, order="C")
    alpha = values[..., 3:].astype(np.uint32)
    mixed = values[..., :3] * alpha + 255 * (255 - alpha)
    return ((mixed + 127) // 255).astype(np.uint8)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1..8; damaged EXIF counts as none."""
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # EXIF blocks of cameras are often damaged, the picture is not
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turn(pixels: ImageArray, orientation: int) -> ImageArray:
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
