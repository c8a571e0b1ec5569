"""Where networks run: what is asked for or an error, and the user is told."""

import numpy as np
import pytest
import torch
from torch import nn

from crops import CropModel, row_picture
from dots import DotModel, dot_picture, random_people
from poise.predict import devices
from poise.predict.devices import Running, running
from poise.predict.predictor import Predictor
from poise.predict.topdown import TopDownPredictor

CPU = torch.device("cpu")


def test_auto_takes_a_gpu_if_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert running("auto") == Running(CPU)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert running("auto").device.type == "cuda"


@pytest.mark.parametrize("name", ["toaster", "cuda:999", "meta", "cpu:x", ""])
def test_what_is_not_there_is_an_error_and_nothing_else(name):
    with pytest.raises(ValueError, match=f"^device '{name}' cannot be used .auto, cpu, cuda.*: .") as error:
        running(name)
    assert "\n" not in str(error.value)


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="there is an Apple GPU")
def test_an_apple_gpu_that_is_not_there():
    with pytest.raises(ValueError, match=r"device 'mps' cannot be used .*: there is no Apple GPU that torch can use$"):
        running("mps")


@pytest.mark.parametrize("name", ["cpu", "auto"])
def test_half_precision_is_never_dropped_in_silence(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="half precision in float16 is for GPUs, and this would run on the CPU"):
        Predictor(DotModel(), name, half=True)


@pytest.mark.parametrize(
    ("half", "kind"),
    [(False, torch.float32), (True, torch.float16), ("float16", torch.float16), ("bfloat16", torch.bfloat16)],
)
def test_half_precision_of_two_kinds(monkeypatch, half, kind):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    how = running("auto", half=half)
    assert how.precision == kind
    assert running("auto", half=how.half) == how


def test_half_precision_of_another_kind():
    with pytest.raises(ValueError, match="half precision 'fp8' is not known; True or 'float16', 'bfloat16'"):
        Predictor(DotModel(), "cpu", half="fp8")


@pytest.mark.parametrize("able", [False, True])
def test_bfloat16_on_a_processor_is_told_where_it_is_slow(monkeypatch, caplog, able):
    devices._warn_slow.cache_clear()
    monkeypatch.setattr(devices.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: able, raising=False)
    for _ in range(2):
        assert running("cpu", half="bfloat16").precision == torch.bfloat16
    assert len(caplog.messages) == (0 if able else 1)
    assert able or "no arithmetic for bfloat16" in caplog.messages[0]


def test_a_machine_that_cannot_compile_says_so_at_once(monkeypatch):
    def compiler(function):
        raise RuntimeError("InvalidCxxCompiler\nno working C++ compiler was found\n")

    monkeypatch.setattr(torch, "compile", compiler)
    with pytest.raises(ValueError, match="cannot be compiled on this machine: no working C"):
        Predictor(DotModel(), "cpu", compile=True)


def test_what_users_are_told(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert str(Running(CPU)) == "the CPU (1 thread), float32"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    assert str(Running(CPU, compiled=True)) == "the CPU (8 threads), float32, compiled"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GPU X")
    assert str(Running(torch.device("cuda"), torch.float16)) == "cuda:0 (GPU X), float16"
    assert str(Running(CPU, torch.bfloat16)) == "the CPU (8 threads), bfloat16"
    assert str(Running(torch.device("cuda:1"))) == "cuda:1 (GPU X), float32"
    assert str(Running(torch.device("mps"))) == "mps, float32"


class Telling(nn.Module):
    """Stands for a network with a convolution; knows the type that it computed in."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 1)

    def seen(self, images):
        self.kind = self.layer(images).dtype


def test_half_precision_reaches_the_network_and_poses_stay_float32():
    """On the CPU, where the same context works."""
    telling = Telling()

    class Model(DotModel):
        def detect(self, images, sizes):
            telling.seen(images)
            return super().detect(images, sizes)

    people = random_people(np.random.default_rng(1), (90, 120), 2)
    picture = dot_picture((90, 120), people)
    whole = Predictor(DotModel(), "cpu").predict(picture)[0]
    predictor = Predictor(Model(), "cpu")
    for kind in (torch.float32, torch.float16, torch.bfloat16):
        predictor.running = Running(CPU, kind)
        [found] = predictor.predict(picture)
        assert telling.kind == kind
        np.testing.assert_allclose(found.keypoints, whole.keypoints, atol=0.5)


def test_half_precision_of_crops():
    class Model(CropModel):
        kind = None

        def heatmaps(self, images):
            Model.kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32
            return super().heatmaps(images)

    predictor = TopDownPredictor(Model(), Predictor(DotModel(), "cpu"), "cpu")
    predictor.predict(row_picture(1), min_score=0)
    assert Model.kind == torch.float32
    for half in (torch.float16, torch.bfloat16):
        predictor.running = Running(CPU, half)
        predictor.predict(row_picture(1), min_score=0)
        assert Model.kind == half


class Convolving(CropModel):
    """A crop model with a layer that changes nothing."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 3, 1, bias=False), nn.ReLU())
        nn.init.dirac_(self.backbone[0].weight)

    def heatmaps(self, images):
        return super().heatmaps(self.backbone(images))


@pytest.mark.slow
def test_a_compiled_network_finds_the_same():
    people = Predictor(DotModel(), "cpu")
    compiled = TopDownPredictor(Convolving(), people, "cpu", compile=True)
    assert compiled.model.backbone._compiled_call_impl is not None
    assert str(compiled.running).endswith("compiled")
    [found] = compiled.predict(row_picture(2), min_score=0)
    [expected] = TopDownPredictor(CropModel(), people, "cpu").predict(row_picture(2), min_score=0)
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=1e-2)
