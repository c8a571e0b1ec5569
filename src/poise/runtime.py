"""Exported models at work, without torch: numpy, OpenCV and onnxruntime (or OpenVINO) are all this file needs.

It imports nothing else of Poise, so it may also be copied into another program.

Letters: N poses, K keypoints, B people, H W input size.
Frames: *image px* are pixels of the picture, *input px* those of what the network sees; an integer is a pixel's centre.
"""

from __future__ import annotations

import json
import os
import re
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

FORMAT = 1
"""Version of the description in exported files."""
KEY = "poise"
"""Under which a file's metadata hold the description."""
CROPS_AT_ONCE = 16
KEPT_GRAPHS = 8
"""Compiled graphs of OpenVINO, tens of megabytes each, that stay on disk."""
LEAST_OPENVINO = 2026, 1
"""The oldest version with which all files were seen to be written and run."""
LEAST_ONNXRUNTIME = 1, 25
"""The same; before, it has no DeformConv."""
_LARGEST_SIDE = 32_766

Array = npt.NDArray[Any]
Size = tuple[int, int]
"""(height, width)."""
Run = Callable[[Mapping[str, Array]], Sequence[Array]]
"""From inputs by name to outputs in order."""
Opened = tuple[str | None, Run, str]
"""The description as JSON, the function, and what runs it."""


class Found(NamedTuple):
    """The poses of one picture, best first, image px."""

    keypoints: Array
    """(N, K, 2) float32 x, y."""
    keypoint_scores: Array
    """(N, K) float32."""
    boxes: Array
    """(N, 4) float32 xyxy."""
    scores: Array
    """(N,) float32."""


class Letterbox(NamedTuple):
    """A whole picture as network input."""

    image: Array
    """(1, H, W, 3) uint8 RGB; the picture is at the upper left."""
    size: Size
    """What the picture covers of it."""
    to_input: Array
    """(2, 3) float64 map image px -> input px."""


class ExportedModel:
    """A file that ``poise export`` wrote, ready to look at pictures.

    Args:
        path: ``*.onnx`` (run by onnxruntime), ``*.xml`` (OpenVINO), ``*.pt2`` or ``*.torchscript`` (torch).
        device: ``auto``, ``cpu`` or ``cuda``; ``auto`` is CUDA if onnxruntime was built with it and it starts, else
            the CPU.
        threads: of the processor; 0 lets the runtime decide.

    Attributes:
        path: of the file.
        description: what the file says about itself: skeleton, view, decoding, who made it.
        running: what runs it, and where.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no exported model, or one of a newer Poise, or its runtime is not installed, or cannot use
            the ``device``.
    """

    def __init__(self, path: str | Path, device: str = "auto", threads: int = 0) -> None:
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"model {path} does not exist")
        opener = OPENERS.get(path.suffix.lower())
        if opener is None:
            raise ValueError(f"{path} is none of the exported models that can be run here: {', '.join(OPENERS)}")
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device {device!r} is not known to exported models: auto, cpu or cuda")
        text, self._run, self.running = opener(path, device, threads)
        self.path = path
        self.description = _checked(text, path)

    @property
    def looks_at_people(self) -> bool:
        """Whether it looks at one person at a time and must be told where people are."""
        return bool(self.description["view"]["kind"] == "crop")

    def find(
        self,
        image: Array,
        boxes: npt.ArrayLike | None = None,
        box_scores: npt.ArrayLike | None = None,
        batch: int = CROPS_AT_ONCE,
    ) -> Found:
        """The poses in one picture.

        Args:
            image: (H, W, 3) uint8 RGB.
            boxes: (B, 4) xyxy of the people, image px; for models that look at one person at a time, and only those.
                The poses' boxes are then these, clipped to the picture.
            box_scores: (B,) how sure each box is; None: 1.
            batch: people that run together.

        Raises:
            ValueError: the picture has another shape or type, or boxes are missing or not wanted.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"picture has shape {image.shape} and type {image.dtype}; expected (H, W, 3) of uint8")
        if (boxes is not None) != self.looks_at_people:
            raise ValueError("this model needs boxes of people" if boxes is None else "this model takes no boxes")
        if boxes is None:
            return self._find_whole(image)
        places = np.asarray(boxes, np.float32).reshape(-1, 4)
        sure = np.ones(len(places), np.float32) if box_scores is None else np.asarray(box_scores, np.float32)
        return self._find_people(image, places, sure, batch)

    def whole_feeds(self, image: Array) -> dict[str, Array]:
        """What a graph of whole pictures is given for a picture (H, W, 3)."""
        description = self.description
        seen = letterbox(image, description["view"], description["canvas"], description["least_side"])
        to_image = inverse(seen.to_input).astype(np.float32)
        return {"image": seen.image, "size": np.array(seen.size, np.int64), "to_image": to_image}

    def crop_feeds(self, image: Array, boxes: Array, box_scores: Array) -> dict[str, Array]:
        """What a graph of crops is given for people (B >= 1) of a picture; arguments as `find`."""
        view = self.description["view"]
        maps = [crop_matrix(box, view) for box in boxes]
        return {
            "image": np.stack([crop(image, matrix, view["size"]) for matrix in maps]),
            "to_image": np.stack([inverse(matrix) for matrix in maps]).astype(np.float32),
            "box_scores": np.asarray(box_scores, np.float32),
        }

    def _find_whole(self, image: Array) -> Found:
        keypoints, marks, boxes, scores, people = self._run(self.whole_feeds(image))
        n = int(people[0])
        return Found(keypoints[:n], marks[:n], _inside(boxes[:n], image), scores[:n])

    def _find_people(self, image: Array, boxes: Array, box_scores: Array, batch: int) -> Found:
        parts = [_nobody(len(self.description["skeleton"]["keypoints"]))]
        for first in range(0, len(boxes), batch):
            some = slice(first, first + batch)
            parts.append(Found(*self._run(self.crop_feeds(image, boxes[some], box_scores[some]))))
        joined = Found(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
        kept, scores = suppress_people(joined, self.description)
        order = np.argsort(-scores, kind="stable")
        rows = kept[order]
        return Found(joined.keypoints[rows], joined.keypoint_scores[rows], _inside(boxes[rows], image), scores[order])


# -------------------------------------------------------------------------------------------------------- geometry


def fit(image_size: Size, view: Mapping[str, Any], canvas: Sequence[int] | None) -> tuple[Array, Size]:
    """How a whole picture goes into the network's input.

    Args:
        image_size: of the picture.
        view: of the file's description.
        canvas: (height, width) that the input has always; None: it follows from the picture.

    Returns:
        The (2, 3) float64 map image px -> input px, and what the picture covers of the input.
    """
    height, width = image_size
    factor = view["long_side"] / max(image_size)
    if view["short_side"] is not None:
        factor = min(factor, view["short_side"] / min(image_size))
    if canvas is not None:
        factor = min(factor, canvas[0] / height, canvas[1] / width)
    size = max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))
    if not view["half_pixel"]:
        return np.array([[factor, 0, 0], [0, factor, 0]], np.float64), size
    fx, fy = size[1] / width, size[0] / height
    return np.array([[fx, 0, 0.5 * (fx - 1)], [0, fy, 0.5 * (fy - 1)]]), size


def letterbox(
    image: Array, view: Mapping[str, Any], canvas: Sequence[int] | None = None, least_side: int = 0
) -> Letterbox:
    """The picture (H, W, 3) scaled as `fit` says, with zeros at the right and bottom.

    Without a canvas the sides are padded to multiples of the view's stride that are at least ``least_side``.
    """
    image_size = image.shape[0], image.shape[1]
    to_input, size = fit(image_size, view, canvas)
    if size != image_size:
        method = cv2.INTER_AREA if max(size) < 0.5 * max(image_size) else cv2.INTER_LINEAR
        image = cv2.resize(image, (size[1], size[0]), interpolation=method)
    stride = view["stride"]
    height, width = canvas or [max(-(-side // stride) * stride, least_side) for side in size]
    if size == (height, width):
        return Letterbox(np.ascontiguousarray(image)[None], size, to_input)
    padded = np.zeros((1, height, width, 3), np.uint8)
    padded[0, : size[0], : size[1]] = image
    return Letterbox(padded, size, to_input)


def crop_matrix(box: Array, view: Mapping[str, Any]) -> Array:
    """The (2, 3) float64 map image px -> input px that shows the box (4,) xyxy of a person.

    The box, its sides times ``extension``, is widened to the shape of the input; its centre goes to the input's.

    Raises:
        ValueError: the box is none.
    """
    corners = np.asarray(box, np.float64)
    if not np.isfinite(corners).all() or (corners[2:] < corners[:2]).any():
        raise ValueError(f"a person's box must be (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, not {corners.tolist()}")
    height, width = view["size"]
    sides = np.maximum(corners[2:] - corners[:2], 1.0) * view["extension"]
    factor = width / max(sides[0], sides[1] * width / height)
    shift = np.array([width / 2, height / 2]) - factor * (corners[:2] + corners[2:]) / 2
    return np.array([[factor, 0, shift[0]], [0, factor, shift[1]]])


def crop(image: Array, matrix: Array, size: Sequence[int]) -> Array:
    """The picture through a map image px -> input px as (h, w, 3): bilinear, black outside.

    Raises:
        ValueError: the picture is too large for OpenCV.
    """
    if max(image.shape[:2]) > _LARGEST_SIDE:
        raise ValueError(f"picture has a side of {max(image.shape[:2])} pixels; more than {_LARGEST_SIDE} are too many")
    warped: Array = cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return warped


def inverse(matrix: Array) -> Array:
    """The inverse of a (2, 3) map."""
    return np.linalg.inv(np.vstack([matrix, [0.0, 0.0, 1.0]]))[:2]


def _inside(boxes: Array, image: Array) -> Array:
    """Boxes clipped to the outer edges of the picture."""
    height, width = image.shape[:2]
    edge = np.array([width, height, width, height], np.float32) - np.float32(0.5)
    clipped: Array = np.clip(boxes, np.float32(-0.5), edge)
    return clipped


def _nobody(keypoint_count: int) -> Found:
    shapes = ((0, keypoint_count, 2), (0, keypoint_count), (0, 4), (0,))
    return Found(*(np.zeros(shape, np.float32) for shape in shapes))


# ------------------------------------------------------------------------------------------------------ suppression


def suppress_people(found: Found, description: Mapping[str, Any]) -> tuple[Array, Array]:
    """Whom a model that looks at one person at a time keeps: indices (n,) and scores (n,).

    ``hard`` drops whom a better pose resembles by more than the threshold; ``soft`` lowers scores by
    exp(-OKS^2 / threshold) and stops after ``max_poses``; ``none`` keeps all.
    """
    rule = description["suppression"]
    if rule["method"] == "none" or not len(found.scores):
        return np.arange(len(found.scores)), found.scores
    areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
    least = rule.get("oks_min_score")  # files written before it was there have none
    counted = None if least is None else found.keypoint_scores > least
    alike = mutual_oks(found.keypoints, areas, description["skeleton"]["sigmas"], counted)
    hard = rule["method"] == "hard"
    limit = len(areas) if hard else rule["max_poses"] if rule["max_poses"] > 0 else len(areas)
    taken: list[int] = []
    current, left = found.scores.astype(np.float32), np.ones(len(areas), np.bool_)
    while left.any() and len(taken) < limit:
        best = int(np.where(left, current, -np.inf).argmax())
        taken.append(best)
        left[best] = False
        same = alike[best]
        factor = same <= rule["threshold"] if hard else np.exp(-(same**2) / np.float32(rule["threshold"]))
        current = np.where(left, current * factor, current).astype(np.float32)
        left &= current >= rule["min_score"]
    return np.array(taken), current[taken]


def mutual_oks(keypoints: Array, areas: Array, sigmas: Sequence[float], counted: Array | None = None) -> Array:
    """(N, N) float32 object keypoint similarity of poses (N, K, 2), with the mean of both areas (N,).

    With ``counted`` (N, K), of two poses only keypoints that count in both; 0 where there are none.
    """
    squares = ((keypoints[:, None] - keypoints[None]) ** 2).sum(-1)
    area = (areas[:, None] + areas[None]) / 2 + np.spacing(1)
    scale = np.array([2 * (2 * sigma) ** 2 for sigma in sigmas])
    each = np.exp(-squares / (area[..., None] * scale))
    if counted is None:
        mean: Array = each.mean(-1).astype(np.float32)
        return mean
    both = counted[:, None] & counted[None]
    alike: Array = ((each * both).sum(-1) / both.sum(-1).clip(1)).astype(np.float32)
    return alike


# --------------------------------------------------------------------------------------------------------- runtimes


def _onnx(path: Path, device: str, threads: int) -> Opened:
    runtime = _library("onnxruntime", path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    there = runtime.get_available_providers()
    cuda = "CUDAExecutionProvider"
    if device == "cuda" and cuda not in there:
        raise ValueError("device 'cuda' needs onnxruntime-gpu; the onnxruntime installed here has the CPU only")
    providers = [cuda] if cuda in there and device != "cpu" else []
    providers.append("CPUExecutionProvider")
    try:
        session = _loaded(path, lambda: runtime.InferenceSession(str(path), options, providers=providers))
    except ValueError as error:
        if not _older(runtime.__version__, LEAST_ONNXRUNTIME):
            raise
        raise ValueError(f"{error}; onnxruntime {runtime.__version__} is old: pip install -U onnxruntime") from None
    on_cuda = session.get_providers()[0] == cuda
    if device == "cuda" and not on_cuda:  # onnxruntime goes on without it
        raise ValueError(
            f"device 'cuda': onnxruntime {runtime.__version__} cannot start CUDA here; it needs an NVIDIA GPU and the "
            "CUDA and cuDNN it was built for (pip install 'onnxruntime-gpu[cuda,cudnn]'), or take device 'cpu'"
        )
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    place = "cuda" if on_cuda else "the CPU"
    return text, lambda feeds: session.run(None, dict(feeds)), f"{place} (onnxruntime {runtime.__version__})"


def _openvino(path: Path, device: str, threads: int) -> Opened:
    runtime = _library("openvino", path)
    if device == "cuda":
        raise ValueError("OpenVINO does not run on CUDA; leave out the device, or export to ONNX")
    refuse_old_openvino(runtime.__version__)
    core = runtime.Core()
    model = _loaded(path, lambda: core.read_model(str(path)))
    text = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    if not _has_eight_bits(text):  # else what is not in eight bits is in bfloat16 where the processor has it
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    folder = _cache()
    if folder is not None:
        settings["CACHE_DIR"] = str(folder)
    compiled = _loaded(path, lambda: core.compile_model(model, "CPU", settings))
    own = threading.local()  # a request holds its results until the next; threads must not share one

    def run(feeds: Mapping[str, Array]) -> list[Array]:
        if not hasattr(own, "request"):
            own.request = compiled.create_infer_request()
        results = own.request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        return [np.array(results[i]) for i in range(len(compiled.outputs))]

    return text, run, f"the CPU (OpenVINO {runtime.__version__.split('-')[0]})"


def _has_eight_bits(text: str | None) -> bool:
    """Whether a file's description says that it was quantised."""
    try:
        description = json.loads(text or "null")
    except ValueError:
        return False
    return isinstance(description, dict) and description.get("weights") == "int8"


def _cache() -> Path | None:
    """Folder for graphs that OpenVINO has compiled, the newest of which are kept; None: none, or it cannot be written.

    They are found again by the content of the file and the settings.
    """
    wanted = os.environ.get("POISE_CACHE")
    if wanted == "":
        return None
    try:
        base = Path(wanted) if wanted else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poise"
        folder = base / "openvino"
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return None
        blobs = sorted(folder.glob("*.blob"), key=lambda blob: blob.stat().st_mtime)
        for old in blobs[: max(0, len(blobs) - KEPT_GRAPHS)]:
            old.unlink()
    except (OSError, RuntimeError):  # no home, somebody else was faster, ...
        return None
    return folder


def _pt2(path: Path, device: str, threads: int) -> Opened:
    torch = _torch(path, device, threads)
    extra = {KEY: ""}
    module = _loaded(path, lambda: torch.export.load(str(path), extra_files=extra).module())
    return extra[KEY], _torch_run(torch, module), f"the CPU (torch.export, torch {torch.__version__})"


def _torchscript(path: Path, device: str, threads: int) -> Opened:
    torch = _torch(path, device, threads)
    extra: dict[str, Any] = {KEY: ""}
    module = _loaded(path, lambda: torch.jit.load(str(path), map_location="cpu", _extra_files=extra).eval())
    text = extra[KEY]
    text = text.decode("utf-8") if isinstance(text, bytes) else text
    return text, _torch_run(torch, module), f"the CPU (TorchScript, torch {torch.__version__})"


def _torch(path: Path, device: str, threads: int) -> Any:
    torch = _library("torch", path)
    _library("torchvision", path)  # its operators are in the file
    if device == "cuda":
        raise ValueError(f"{path.suffix} files are run on the CPU here; the model itself runs on CUDA")
    if threads:
        torch.set_num_threads(threads)
    return torch


def _torch_run(torch: Any, module: Any) -> Run:
    def run(feeds: Mapping[str, Array]) -> list[Array]:
        with torch.no_grad():
            outputs = module(*(torch.from_numpy(value) for value in feeds.values()))
        return [output.numpy() for output in outputs]

    return run


OPENERS = {".onnx": _onnx, ".xml": _openvino, ".pt2": _pt2, ".torchscript": _torchscript}
"""How a file is opened, by its suffix: (path, device, threads)."""


def _loaded(path: Path, load: Callable[[], Any]) -> Any:
    """What ``load`` gives; whatever a runtime raises over a bad file becomes a ``ValueError``."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load()
    except Exception as error:
        raise ValueError(f"{path} cannot be loaded: {_one_line(error)}") from None


def refuse_old_openvino(version: str) -> None:
    """``ValueError`` for an OpenVINO that does not compute all of these files as they say (2025.4 has other scores)."""
    if _older(version, LEAST_OPENVINO):
        least = ".".join(str(part) for part in LEAST_OPENVINO)
        told = version.partition("-")[0]
        raise ValueError(f"OpenVINO {told} is too old for these files: {least} or newer (pip install -U openvino)")


def _older(version: str, least: tuple[int, int]) -> bool:
    """Whether a version is older than another; one that does not begin with two numbers is not."""
    found = re.match(r"(\d+)\.(\d+)", version)
    return found is not None and (int(found[1]), int(found[2])) < least


def _library(name: str, path: Path) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise ValueError(f"{path} needs {name}, which is not installed: pip install {name}") from None


def _checked(text: str | None, path: Path) -> dict[str, Any]:
    """The description; ``ValueError`` unless this file understands it."""
    if not text:
        raise ValueError(f"{path} was not written by poise export: it does not say what it shows and needs")
    try:
        description = dict(json.loads(text))
        version = int(description["format"])
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path}: its description is damaged: {_one_line(error)}") from None
    if version > FORMAT:
        raise ValueError(f"{path} has format {version}, this runtime reads up to {FORMAT}: upgrade Poise")
    return description


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
