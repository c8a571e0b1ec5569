"""Models that are trained in mixed precision are measured in the precision of their weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from poise.data.views import Batch
from poise.models import build_model
from poise.models.base import PoseModel
from poise.models.directpose import DirectPoseConfig, HeatmapConfig
from poise.predict.predictor import Predictor
from poise.train.config import TrainConfig
from poise.train.engine import Trainer
from poise.types import Persons, View, ViewSpec

CONFIG = DirectPoseConfig(
    backbone="mobilenetv2_035", anti_alias=False, channels=16, group_channels=4, cls_depth=1, keypoint_depth=1,
    heatmap=HeatmapConfig(channels=8), view=ViewSpec(long_side=96, short_side=None),
)  # fmt: skip


class Pictures:
    """Endless batches of one noisy picture with somebody in it."""

    steps_per_epoch = 1
    state = (0, 0)

    def set_state(self, epoch: int, batch: int = 0) -> None:
        self.state = (epoch, batch)

    def names(self, epoch: int, image_ids: Any) -> list[str]:
        return [f"{epoch}:{i}" for i in image_ids]

    def __iter__(self) -> Any:
        rng = np.random.default_rng(0)
        keypoints = np.concatenate([rng.uniform(20, 70, (1, 17, 2)), np.full((1, 17, 1), 2.0)], 2)
        truth = Persons.from_numpy(keypoints, [[19, 19, 71, 71]], [2500.0], np.zeros((0, 4)))
        image = torch.from_numpy(rng.standard_normal((3, 96, 96)).astype(np.float32))
        view = View(image, np.eye(2, 3), (96, 96), (96, 96), persons=truth)
        while True:
            yield Batch(torch.stack([image, image.flip(2)]), [truth, Persons.empty(17)], [view, view])


@pytest.mark.parametrize("ema", [None, 0.9])
def test_a_model_trained_in_bfloat16_is_measured_in_float32(ema: float | None) -> None:
    torch.manual_seed(0)
    measured: list[PoseModel] = []

    def evaluate(model: PoseModel) -> dict[str, float]:
        assert isinstance(model, torch.nn.Module)
        assert not model.training
        assert model(torch.zeros(1, 3, 96, 96)).logits[0].dtype == torch.float32
        Predictor(model, "cpu").predict([np.zeros((96, 96, 3), np.uint8)])
        measured.append(model)
        return {"AP": 0.5}

    settings = TrainConfig.parse({"steps": 2, "precision": "bf16", "ema": ema, "eval_every": 1, "save_every": 1000})
    trainer = Trainer(build_model(CONFIG), Pictures(), settings, evaluate=evaluate, device="cpu")
    assert trainer.run().finished
    assert len(measured) == 2
    network = trainer.model if ema is None else trainer.ema.model
    assert all(a is b for a, b in zip(measured[-1].parameters(), network.parameters(), strict=True))
    assert trainer.model.training
    with torch.no_grad():
        images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
        in_training = trainer.model.eval()(images).logits[0]
        exact = trainer.best_model.eval()(images).logits[0]
        repeated = build_model(CONFIG).eval()
        repeated.load_state_dict(trainer.best_model.state_dict())
        assert torch.equal(exact, repeated(images).logits[0])
    assert ema is not None or not torch.equal(in_training, exact)
