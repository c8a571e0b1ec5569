"""A model that cannot learn two pictures by heart has a fault somewhere between truth, loss and decoding."""

import json
import os
from pathlib import Path

import pytest
import torch

from poise.data.coco import read_coco
from poise.data.records import PoseDataset
from poise.data.views import collate, eval_views
from poise.evaluate.coco import evaluate_keypoints
from poise.models import ModelConfig, build_model, preset
from poise.models.base import PoseModel
from poise.predict.predictor import Predictor
from poise.train.initial import load_initial_weights

DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).parents[2] / "../shared/data")
WEIGHTS = Path(os.environ.get("POISE_WEIGHTS") or DATA.parent / "weights")
BACKBONE = WEIGHTS / "mobilenet_v2_imagenet_features.safetensors"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "coco/train").is_dir(), reason=f"no pictures at {DATA} (POISE_DATA)"),
    pytest.mark.skipif(not BACKBONE.is_file(), reason=f"no weights at {BACKBONE} (POISE_WEIGHTS)"),
]

STEPS = 300
SIDE = 256


def two_pictures() -> tuple[PoseDataset, dict[str, object]]:
    """Two COCO pictures with two well labelled people each, and their annotations."""
    file = DATA / "coco/annotations/train.json"
    dataset = read_coco(file, DATA / "coco/train")
    good = [
        r for r in dataset
        if len(r.keypoints) == 2 and len(r.ignore) == 0 and ((r.keypoints[..., 2] > 0).sum(1) >= 12).all()
    ][:2]  # fmt: skip
    assert len(good) == 2
    ids = {r.image_id for r in good}
    truth = json.loads(file.read_text())
    truth["images"] = [i for i in truth["images"] if i["id"] in ids]
    truth["annotations"] = [a for a in truth["annotations"] if a["image_id"] in ids]
    return PoseDataset("two", dataset.skeleton, tuple(good)), truth


def config_of(name: str) -> ModelConfig:
    """As the preset, without drawing keypoints to peaks of heatmaps, which few steps leave blunt."""
    config = preset(name)
    view = config.view.model_copy(update={"long_side": SIDE, "short_side": None})
    return config.model_copy(update={"view": view, "snap": None})


def train(model: PoseModel, dataset: PoseDataset, rate: float) -> None:
    batch = collate(list(eval_views(dataset, model.view)), model.view.stride)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=STEPS)
    for _ in range(STEPS):
        total = sum(model.loss(model(batch.images), batch.persons).values())
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize(("name", "rate"), [("directpose_mobilenetv2", 2e-3), ("smpr_mobilenetv2", 1e-3)])
def test_two_pictures_are_learned_by_heart(name: str, rate: float) -> None:
    torch.manual_seed(0)
    dataset, truth = two_pictures()
    model = build_model(config_of(name), dataset.skeleton)
    load_initial_weights(model, BACKBONE)
    for part in model.backbone.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.eval()
    train(model, dataset, rate)
    found = Predictor(model, "cpu").predict([r.path for r in dataset], min_score=0.0)
    results = [e for poses, record in zip(found, dataset, strict=True) for e in poses.to_coco(record.image_id)]
    metrics = evaluate_keypoints(truth, results, dataset.skeleton)
    assert metrics["AP"] > 0.9, metrics
