"""The comparison on a photograph: everybody who takes part can be called."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torchvision

import poise
from poise.data.images import read_image

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks/photo.py"


class Everybody:
    """Predicts nothing, of arrays of one size."""

    def predict(self, image, scales=None):
        return image.shape, scales


def test_contenders(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("photo", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    photo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(photo)
    monkeypatch.setattr(poise, "load", lambda *names: Everybody())
    monkeypatch.setattr(poise, "pipeline", Everybody)
    build = torchvision.models.detection.keypointrcnn_resnet50_fpn
    asked = {}

    def small(**settings):
        asked.update(settings)
        return build(**{**settings, "min_size": 64, "max_size": 96})

    monkeypatch.setattr(torchvision.models.detection, "keypointrcnn_resnet50_fpn", small)
    contenders = photo.contenders()
    assert (asked["min_size"], asked["max_size"]) == (800, 1333)
    *ours, rcnn = contenders
    for name in ours:
        assert contenders[name]() == ((480, 640, 3), [(384, 384)] if name == "quick" else None)
    contenders[rcnn]()
    assert read_image(photo.PHOTO).ndim == 3
