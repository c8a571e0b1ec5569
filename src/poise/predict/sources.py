"""Where pictures come from: files, folders, patterns and lists of files; arrays, tensors and Pillow images."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from poise.data.coco import IMAGE_SUFFIXES, visible
from poise.data.images import ImageSource, read_image
from poise.types import ImageArray

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class Named:
    """A picture and what it is called, for those who look something up by it.

    Attributes:
        image: the picture.
        name: its file name, or None.
        image_id: its id in a data set, or None.
    """

    image: ImageSource | Tensor
    name: str | None = None
    image_id: int | str | None = None


if TYPE_CHECKING:
    Picture = ImageSource | Tensor | Named
    """One picture: what `read_image` takes, or a tensor (3, H, W) of uint8 or of floats in 0..1; also with a name."""
    Pictures = Picture | Iterable[Picture]
    """One picture or many; an array or tensor of four dimensions is many."""


def find_pictures(source: str | Path) -> list[Path]:
    """The picture files that a text from the command line means.

    - a file: itself, whatever its suffix; but a ``.txt`` file is a list of files, one a line, relative to the list's
      folder (empty lines and lines that start with ``#`` are skipped);
    - a folder: the files in it that have a picture's suffix, not hidden ones, and not those in folders below;
    - a pattern with ``*``, ``?`` or ``[...]`` (``**`` for any depth): the matching files with a picture's suffix.

    Folders and patterns are sorted as people count: ``2.jpg`` before ``10.jpg``. Whether a named file is a picture is
    seen when it is read.

    Raises:
        FileNotFoundError: there is nothing of this name, or nothing matches.
        ValueError: the folder or the list holds no picture.
    """
    path = Path(source)
    if path.is_dir():
        found = _pictures(visible(path.iterdir()))
        if not found:
            raise ValueError(f"folder {path} has no pictures ({', '.join(sorted(IMAGE_SUFFIXES))})")
        return found
    if path.is_file():
        return [path.parent / name for name in listed_names(path)] if path.suffix.lower() == ".txt" else [path]
    if not glob.has_magic(str(source)):
        raise FileNotFoundError(f"{path} does not exist")
    found = _pictures(Path(name) for name in glob.glob(str(source), recursive=True))
    if not found:
        raise FileNotFoundError(f"no picture matches {source}")
    return found


def find_all(sources: Iterable[str | Path]) -> list[Path]:
    """The pictures of several sources in order, each file once; errors as `find_pictures`."""
    return unique([path for source in sources for path in find_pictures(source)])


def unique(paths: Iterable[Path]) -> list[Path]:
    """The paths in order, without those that lead to a file already named."""
    first: dict[Path, Path] = {}
    for path in paths:
        first.setdefault(path.resolve(), path)
    return list(first.values())


def natural_key(path: Path) -> tuple[tuple[int, int, str], ...]:
    """Sort key that compares runs of digits as numbers."""
    parts = re.split(r"(\d+)", str(path).casefold())
    return tuple((1, int(part), part) if i % 2 else (0, 0, part) for i, part in enumerate(parts))


def each_picture(images: Pictures) -> Iterator[Picture]:
    """One picture or many, as an iterator of pictures."""
    return _each(images)


def _each(images: Any) -> Iterator[Any]:
    if isinstance(images, str | Path | bytes | Named) or hasattr(images, "getexif"):
        return iter([images])
    if hasattr(images, "ndim"):
        return iter(images if images.ndim == 4 else [images])
    return iter(images)


def to_image(picture: Picture) -> ImageArray:
    """Any picture as (H, W, 3) uint8 RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a picture (see `read_image`), or a tensor of another shape or range.
    """
    image = picture.image if isinstance(picture, Named) else picture
    return read_image(_array(image) if _is_tensor(image) else cast("ImageSource", image))


def _array(tensor: Any) -> np.ndarray[Any, Any]:
    """(H, W, 3) of a tensor (3, H, W)."""
    if tensor.ndim != 3 or tensor.shape[0] not in (1, 3):
        raise ValueError(f"picture tensor has shape {tuple(tensor.shape)}; expected (3, H, W)")
    return np.ascontiguousarray(tensor.detach().cpu().numpy().transpose(1, 2, 0))


def source_name(picture: Picture) -> str | None:
    """The file name of a picture given by its path, or the name given along with it, else None."""
    if isinstance(picture, Named):
        return picture.name if picture.name is not None else source_name(cast("Picture", picture.image))
    return str(picture) if isinstance(picture, str | Path) else None


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "detach") and hasattr(value, "cpu")


def _pictures(paths: Iterable[Path]) -> list[Path]:
    return sorted((p for p in paths if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file()), key=natural_key)


def listed_names(path: Path) -> list[str]:
    """The lines of a list of files, without empty ones and comments; errors as `find_pictures`."""
    try:
        lines: Sequence[str] = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not a list of files in UTF-8 text") from None
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise ValueError(f"{path} lists no pictures; write one file name a line")
    return names
