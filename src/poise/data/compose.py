"""Training canvases with several people, composed of pictures that often show one.

Three ways: one picture (`single`), four pictures in the quarters of the canvas (`mosaic`), people cut out with their
surroundings and laid on another picture (`paste`). All three place pictures on a canvas with `place`, which
keeps the truth honest: whoever is labelled is seen, and whoever is seen but not labelled lies in an ignore region.

Letters: H W canvas. Frames: picture px of a source, canvas px.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from poise.data import transforms
from poise.data.config import AugmentConfig, Way
from poise.data.crop_config import Range
from poise.data.damage import add_noise, erase, hide_truth, mix
from poise.data.material import Material
from poise.data.samples import (
    Mask,
    Sample,
    Size,
    Truth,
    clip_truth,
    cover_truth,
    join,
    map_truth,
    select,
    settle,
)
from poise.geometry import affine
from poise.types import Affine, FloatArray, ImageArray

Window = tuple[int, int, int, int]
"""x1, y1, x2, y2 of whole pixels; x2 and y2 are excluded."""
Point = tuple[float, float]

_PLACES_TRIED = 8


def compose(material: Material, config: AugmentConfig, size: Size, rng: np.random.Generator) -> Sample:
    """One training canvas of that (height, width), by a way drawn from ``config``, with changed pixels.

    Raises:
        ValueError: no source takes part in a way that ``config`` asks for.
    """
    sample = _canvas(material, config, size, rng)
    if config.mixup_p and rng.random() < config.mixup_p:
        sample = mix(sample, _canvas(material, config, size, rng), rng.uniform(*config.mixup_share))
    image, truth = recolour(sample.image, config, rng), sample.truth
    if config.erase_p and rng.random() < config.erase_p:
        image, covered = erase(image, config.erase_patches, config.erase_size, rng)
        truth = hide_truth(truth, covered, config.min_visible)
    return Sample(image, _ignore_small(truth, config.min_size))


def _canvas(material: Material, config: AugmentConfig, size: Size, rng: np.random.Generator) -> Sample:
    ways: dict[Way, float] = {"single": config.single, "mosaic": config.mosaic, "paste": config.paste}
    shares = np.cumsum([share if material.offers(way) else 0.0 for way, share in ways.items()])
    if shares[-1] <= 0:
        raise ValueError("no source takes part in any of the ways that augment asks for; see ways of the sources")
    way = list(ways)[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]
    return {"single": single, "mosaic": mosaic, "paste": paste}[way](material, config, size, rng)


def single(material: Material, config: AugmentConfig, size: Size, rng: np.random.Generator) -> Sample:
    """One picture, scaled relative to the fitting scale; if it exceeds the canvas, the part around a random person."""
    return _fitted(material, material.picture("single", config.negative_p, rng), config, size, rng)


def _fitted(material: Material, piece: Sample, config: AugmentConfig, size: Size, rng: np.random.Generator) -> Sample:
    fitting = min(size[0] / piece.size[0], size[1] / piece.size[1])
    factor = min(fitting * _log_uniform(config.single_scale, rng), max(config.max_upscale, fitting))
    mirrored, degrees = _turn(config, rng)
    focus = _centre(_somebody(piece, rng))
    seen = (piece.size[1] - 1 - focus[0], focus[1]) if mirrored else focus
    target = (
        _slide((seen[0] + 0.5) * factor, piece.size[1] * factor, size[1], rng, config.translation) - 0.5,
        _slide((seen[1] + 0.5) * factor, piece.size[0] * factor, size[0], rng, config.translation) - 0.5,
    )
    matrix = transforms.similarity(focus, target, factor, degrees, mirrored)
    return place(
        _plain(material, size), piece, matrix, (0, 0, size[1], size[0]), material.flip_index, config.min_visible
    )


def mosaic(material: Material, config: AugmentConfig, size: Size, rng: np.random.Generator) -> Sample:
    """Four pictures, each in a quarter of the canvas, scaled so that a random person has a random size."""
    canvas = _ground(material, size, rng) if rng.random() < config.background_p else _plain(material, size)
    split_x, split_y = (round(side * rng.uniform(*config.split)) for side in (size[1], size[0]))
    for x1, x2 in ((0, split_x), (split_x, size[1])):
        for y1, y2 in ((0, split_y), (split_y, size[0])):
            piece = material.picture("mosaic", config.negative_p, rng)
            matrix = _into_window(piece, (x1, y1, x2, y2), config, max(size), rng)
            canvas = place(canvas, piece, matrix, (x1, y1, x2, y2), material.flip_index, config.min_visible)
    return canvas


def paste(material: Material, config: AugmentConfig, size: Size, rng: np.random.Generator) -> Sample:
    """People with some surroundings, overlapping little, on a picture without people if there are such pictures."""
    if material.has_negatives:
        canvas = _ground(material, size, rng)
    else:
        canvas = _fitted(material, material.people("paste", rng), config, size, rng)
    for _ in range(int(rng.integers(config.pasted[0], config.pasted[1] + 1))):
        piece, person = _cut_out(material.people("paste", rng), config, rng)
        wanted = _log_uniform(config.person_size, rng) * max(size)
        factor = min(wanted / max(_sides(person)), config.max_upscale)
        mirrored, degrees = _turn(config, rng)
        matrix = _free_place(canvas, piece, person, (factor, degrees, mirrored), config.max_overlap, rng)
        feather = 0.01 * max(size) if rng.random() < config.feather_p else 0.0
        if matrix is not None:
            window = (0, 0, size[1], size[0])
            canvas = place(canvas, piece, matrix, window, material.flip_index, config.min_visible, feather)
    return canvas


def place(
    canvas: Sample,
    piece: Sample,
    matrix: Affine,
    window: Window,
    flip_index: tuple[int, ...],
    min_visible: int,
    feather: float = 0.0,
) -> Sample:
    """Lay a picture on a canvas.

    Args:
        canvas: what is there already.
        piece: the picture.
        matrix: picture px -> canvas px.
        window: part of the canvas that may be painted; inside the canvas.
        flip_index: of the skeleton, used if ``matrix`` mirrors.
        min_visible: who is cut or covered to fewer keypoints becomes an ignore region.
        feather: half-width of the blended edge, canvas px; the picture's part beyond the middle counts as not painted.

    Returns:
        A new canvas with the people of both. Keypoints that were painted over, cut off or lie outside the
        picture have visibility 0; boxes and regions are cut to what is seen of them.
    """
    roi = _painted_window(piece.size, matrix, window)
    if roi is None:
        return canvas
    x1, y1, x2, y2 = roi
    local = matrix - np.array([[0, 0, x1], [0, 0, y1]])
    mask = _inside(piece.size, local, (y2 - y1, x2 - x1))
    pixels = transforms.warp_image(piece.image, local, (y2 - y1, x2 - x1), border=None)
    image = canvas.image.copy()
    image[y1:y2, x1:x2], painted_part = _blend(image[y1:y2, x1:x2], pixels, mask, feather)
    painted = np.zeros(canvas.size, np.bool_)
    painted[y1:y2, x1:x2] = painted_part
    below = settle(cover_truth(canvas.truth, painted), canvas.truth.labelled, min_visible)
    moved = map_truth(piece.truth, matrix, flip_index)
    above = settle(cover_truth(clip_truth(moved, canvas.size), ~painted), moved.labelled, min_visible)
    return Sample(image, join([below, above]))


def recolour(image: ImageArray, config: AugmentConfig, rng: np.random.Generator) -> ImageArray:
    """Random brightness, contrast, saturation and hue, sometimes grey, sometimes blurred, sometimes noisy."""
    saturation = 1 + config.saturation * rng.uniform(-1, 1)
    brightness = 1 + config.brightness * rng.uniform(-1, 1)
    contrast = 1 + config.contrast * rng.uniform(-1, 1)
    hue = config.hue * rng.uniform(-1, 1)
    if rng.random() < config.grey_p:
        saturation = 0.0
    sigma = rng.uniform(*config.blur_sigma) if rng.random() < config.blur_p else 0.0
    mean = float(np.mean(cv2.mean(image)[:3])) * brightness
    image = transforms.recolour(image, transforms.colour_matrix(brightness, contrast, saturation, hue, mean))
    image = transforms.blur(image, sigma) if sigma else image
    if config.noise_p and rng.random() < config.noise_p:
        image = add_noise(image, rng.uniform(*config.noise_sigma), rng)
    return image


def _log_uniform(limits: Range, rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(np.log(limits[0]), np.log(limits[1]))))


def _turn(config: AugmentConfig, rng: np.random.Generator) -> tuple[bool, float]:
    """Whether to mirror, and the rotation in degrees."""
    mirrored = bool(rng.random() < config.flip_p)
    turned = rng.random() < config.rotation_p
    return mirrored, float(rng.uniform(-config.rotation, config.rotation)) if turned else 0.0


def _slide(focus: float, extent: float, room: float, rng: np.random.Generator, freedom: float = 1.0) -> float:
    """Where ``focus`` comes to lie when an ``extent`` (it begins at 0) is put at random into ``room``.

    An extent that fits lies inside; one that does not fills the room, and ``focus`` stays visible. ``freedom`` is the
    part of the possible places, around the middle one, that are drawn from.
    """
    if extent <= room:
        low, high = 0.0, room - extent
    else:
        low, high = max(room - extent, -focus), min(0.0, room - focus)
        low = min(low, high)
    place = rng.uniform(low, high)
    if freedom < 1:
        place = (low + high) / 2 + freedom * (place - (low + high) / 2)
    return float(focus + place)


def _sides(box: FloatArray) -> tuple[float, float]:
    return max(1.0, float(box[2] - box[0])), max(1.0, float(box[3] - box[1]))


def _centre(box: FloatArray) -> Point:
    return float(box[0] + box[2]) / 2, float(box[1] + box[3]) / 2


def _somebody(sample: Sample, rng: np.random.Generator) -> FloatArray:
    """Box of a random person; the whole picture if nobody is there."""
    if len(sample.truth):
        box: FloatArray = sample.truth.boxes[int(rng.integers(len(sample.truth)))]
        return box
    height, width = sample.size
    return np.array([-0.5, -0.5, width - 0.5, height - 0.5], np.float32)


def _into_window(piece: Sample, window: Window, config: AugmentConfig, side: int, rng: np.random.Generator) -> Affine:
    """A random map of a picture into a window, in which a random person has a size within ``config.person_size``."""
    x1, y1, x2, y2 = window
    person = _somebody(piece, rng)
    wide, high = _sides(person)
    low, top = config.person_size
    largest = max(low * side, min(top * side, 1.25 * max(x2 - x1, y2 - y1)))
    factor = min(_log_uniform((low * side, largest), rng) / max(wide, high), config.max_upscale)
    if not len(piece.truth):
        factor = max((x2 - x1) / wide, (y2 - y1) / high) * rng.uniform(1.0, 1.5)
    mirrored, degrees = _turn(config, rng)
    target = (
        x1 - 0.5 + _slide(wide * factor / 2, wide * factor, x2 - x1, rng),
        y1 - 0.5 + _slide(high * factor / 2, high * factor, y2 - y1, rng),
    )
    return transforms.similarity(_centre(person), target, factor, degrees, mirrored)


def _cut_out(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> tuple[Sample, FloatArray]:
    """The surroundings of a random person, and the person's box in them."""
    person = _somebody(sample, rng)
    margin = rng.uniform(*config.paste_margin) * max(_sides(person))
    height, width = sample.size
    x1, y1 = (min(max(0, int(v - margin)), side - 1) for v, side in zip(person[:2], (width, height), strict=True))
    x2, y2 = min(width, int(person[2] + margin) + 1), min(height, int(person[3] + margin) + 1)
    x2, y2 = max(x2, x1 + 1), max(y2, y1 + 1)
    moved = transforms.shift(sample.truth, -x1, -y1)
    truth = settle(clip_truth(moved, (y2 - y1, x2 - x1)), moved.labelled, config.min_visible)
    box = person - np.array([x1, y1, x1, y1], np.float32)
    return Sample(sample.image[y1:y2, x1:x2], truth), box


def _free_place(
    canvas: Sample,
    piece: Sample,
    person: FloatArray,
    pose: tuple[float, float, bool],
    max_overlap: float,
    rng: np.random.Generator,
) -> Affine | None:
    """A map with which the piece covers little of every person on the canvas; None if none is found."""
    factor, degrees, mirrored = pose
    height, width = canvas.size
    wide, high = (side * factor for side in _sides(person))
    extent = np.array([[-0.5, -0.5, piece.size[1] - 0.5, piece.size[0] - 0.5]])
    for _ in range(_PLACES_TRIED):
        target = _slide(wide / 2, wide, width, rng) - 0.5, _slide(high / 2, high, height, rng) - 0.5
        matrix = transforms.similarity(_centre(person), target, factor, degrees, mirrored)
        if _overlap(affine.apply_to_boxes(matrix, extent)[0], canvas.truth.boxes) <= max_overlap:
            return matrix
    return None


def _overlap(box: npt.NDArray[np.float64], others: FloatArray) -> float:
    """Largest share of one of the other boxes (N, 4) that lies in the box; 0 without others."""
    low = np.maximum(box[:2], others[:, :2])
    high = np.minimum(box[2:], others[:, 2:])
    common = np.maximum(high - low, 0).prod(1)
    areas = np.maximum(others[:, 2:] - others[:, :2], 1e-6).prod(1)
    return float((common / areas).max(initial=0.0))


def _plain(material: Material, size: Size) -> Sample:
    image = np.empty((size[0], 3 * size[1]), np.uint8)
    image[:] = np.tile(
        np.array(material.fill, np.uint8), size[1]
    )  # by rows, as numpy is slow at repeating three values
    return Sample(image.reshape(*size, 3), Truth.empty(material.keypoint_count))


def _ground(material: Material, size: Size, rng: np.random.Generator) -> Sample:
    """A random part of a picture without people that fills the canvas; plain if there is no such picture."""
    picture = material.negative(rng)
    if picture is None:
        return _plain(material, size)
    height, width = picture.shape[:2]
    factor = max(size[0] / height, size[1] / width) * rng.uniform(1.0, 1.5)
    matrix = affine.scaling(factor, factor)
    if rng.random() < 0.5:
        matrix = affine.compose(affine.mirror(width), matrix)
    shift = affine.translation(
        rng.uniform(min(0.0, size[1] - width * factor), 0), rng.uniform(min(0.0, size[0] - height * factor), 0)
    )
    image = transforms.warp_image(picture, affine.compose(matrix, shift), size, border=None)
    return Sample(image, Truth.empty(material.keypoint_count))


def _painted_window(size: Size, matrix: Affine, window: Window) -> Window | None:
    """The part of the window whose pixel centres may lie in the mapped picture; None if there is none."""
    hull = affine.apply_to_boxes(matrix, np.array([-0.5, -0.5, size[1] - 0.5, size[0] - 0.5]))
    x1, y1 = max(window[0], int(np.ceil(hull[0]))), max(window[1], int(np.ceil(hull[1])))
    x2, y2 = min(window[2], int(np.floor(hull[2])) + 1), min(window[3], int(np.floor(hull[3])) + 1)
    return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def _inside(size: Size, matrix: Affine, area: Size) -> npt.NDArray[np.uint8]:
    """(H, W) 255 where a pixel of the ``area`` lies in the mapped picture, else 0."""
    if matrix[0, 1] == 0 and matrix[1, 0] == 0:
        return np.full(area, 255, np.uint8)
    height, width = size
    corners = affine.apply(matrix, np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]]))
    mask = np.zeros(area, np.uint8)
    cv2.fillConvexPoly(mask, np.rint(corners * 16).astype(np.int32), 255, shift=4)
    return mask


def _blend(
    below: ImageArray, above: ImageArray, mask: npt.NDArray[np.uint8], feather: float
) -> tuple[ImageArray, Mask]:
    """``above`` laid on ``below`` where the mask is set, and where it prevails."""
    if feather <= 0:
        return np.asarray(cv2.copyTo(above, mask, below.copy())), mask > 0
    padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, 3)[1:-1, 1:-1]
    share = np.ascontiguousarray(np.minimum(depth / np.float32(2 * feather), 1))
    return np.asarray(cv2.blendLinear(above, np.ascontiguousarray(below), share, 1 - share)), share > 0.5


def _ignore_small(truth: Truth, min_size: float) -> Truth:
    sides = truth.boxes[:, 2:] - truth.boxes[:, :2]
    small = sides.max(1, initial=0.0) < min_size
    return replace(select(truth, ~small), ignore=np.concatenate([truth.ignore, truth.boxes[small]]))
