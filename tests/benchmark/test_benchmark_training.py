"""Training steps and training pictures that are measured, and what the command prints of it all."""

import json
import re

import pytest
import torch
from typer.testing import CliRunner

from poise.benchmark import run as run_room
from poise.benchmark import training as training_room
from poise.benchmark.clock import Stopwatch
from poise.benchmark.data import benchmark_data
from poise.benchmark.report import ContestRow, Latency, ModelRow, PeopleRow, Report, SizeRow
from poise.benchmark.training import PARTS, TrainingStep, benchmark_training, seen_size, truths
from poise.cli.main import app
from poise.data.config import DataConfig, SourceConfig
from poise.skeletons import COCO17
from poise.train.recipes import recipe
from poise.types import ViewSpec
from tiny_set import write_tiny_set

CPU = torch.device("cpu")
VIEW = ViewSpec(long_side=96, short_side=None)


def invoke(*arguments):
    return CliRunner().invoke(app, ["benchmark", *map(str, arguments)])


def tiny_data(root):
    write_tiny_set(root, pictures=5)
    source = SourceConfig(annotations=str(root / "tiny.json"), images=str(root / "pictures"))
    return DataConfig(sources=(source,), sizes=(64,), batch=2, workers=1)


def test_training_pictures(tmp_path):
    told = []
    report = benchmark_data(
        tiny_data(tmp_path), VIEW, COCO17, (0, 1), 3, 4, lambda done, total: told.append((done, total))
    )
    assert [(row.workers, row.images) for row in report.workers] == [(0, 6), (1, 6)]
    assert all(row.images_per_second > 0 for row in report.workers)
    shares = report.shares
    assert shares.files >= 1
    assert shares.decode + shares.augment + shares.tensor == pytest.approx(shares.processor)
    assert 0 < shares.decode_share < 1
    assert shares.decode_share + shares.augment_share < 1
    assert told[-1] == (10, 10)
    assert json.loads(json.dumps(report.to_dict()))["pipeline"] == "compose"
    with pytest.raises(ValueError, match="at least 1"):
        benchmark_data(tiny_data(tmp_path / "b"), VIEW, COCO17, (0,), 0)


def test_data_on_the_command_line(tmp_path):
    write_tiny_set(tmp_path, pictures=5)
    options = "--set data.sizes=[64] --set data.batch=2 --workers 0 --batches 2"
    changes = ("--images", tmp_path / "pictures", *options.split())
    result = invoke("data", tmp_path / "tiny.json", *changes)
    assert result.exit_code == 0, result.output
    assert re.search(r"compose +2 +0 +[\d.]+", result.stdout)
    assert "augmentation" in result.stdout
    told = json.loads(invoke("data", tmp_path / "tiny.json", *changes, "--json").stdout)
    assert told["workers"][0]["images"] == 4
    assert invoke("data").exit_code == 2
    missing = invoke("data", tmp_path / "no.json")
    assert missing.exit_code == 1
    assert "no.json does not exist" in missing.stderr


@pytest.mark.parametrize("name", ["directpose_mobilenetv2", "rsn_small"])
def test_a_step_has_three_parts(name):
    step, watch = TrainingStep(recipe(name), "channels_last", 2, 64, CPU), Stopwatch(CPU)
    step(watch)
    assert tuple(watch.stages) == PARTS
    assert all(parameter.grad is None for parameter in step._module.parameters())
    assert step.size == ((64, 64) if name != "rsn_small" else step._model.view.size)


def test_ways_take_turns_and_are_compared():
    told = []
    report = benchmark_training(
        {"directpose_mobilenetv2": recipe("directpose_mobilenetv2")}, ("plain", "amp"), 2, 64, 1, "cpu", 3,
        lambda done, total: told.append((done, total)),
    )  # fmt: skip
    plain, mixed = report.steps
    assert (plain.way, plain.faster, mixed.way) == ("plain", 1.0, "amp")
    seconds = sum(getattr(part, report.clock) for part in mixed.parts.values()) / 1e3
    assert mixed.images_per_second == pytest.approx(2 / seconds, rel=0.01)
    assert [row.name for row in report.profile][-1] == "others"
    assert len(report.profile) == 4
    assert sum(row.share for row in report.profile) == pytest.approx(1)
    assert told[-1] == (4, 4)
    with pytest.raises(ValueError, match="did you mean 'amp'"):
        benchmark_training({"a": recipe("rsn_small")}, ("ampp",))
    with pytest.raises(ValueError, match="at least 1"):
        benchmark_training({}, ("plain",))


def test_pictures_of_a_step_hold_the_people_that_they_should():
    whole = truths(5, (64, 96), VIEW)
    assert [len(t) for t in whole] == [1, 2, 3, 4, 1]
    assert all((t.keypoints[..., 2] == 2).all() for t in whole)
    crop = ViewSpec(kind="crop", size=(64, 48))
    assert [len(t) for t in truths(3, (64, 48), crop)] == [1, 1, 1]
    assert seen_size(crop, 500) == (64, 48)
    assert seen_size(VIEW, 65) == (96, 96)


def test_training_on_the_command_line(monkeypatch):
    options = ("--ways", "channels_last", "--batch", "2", "--side", "64", "--rounds", "1", "--device", "cpu")
    result = invoke("training", "directpose_mobilenetv2", *options)
    assert result.exit_code == 0, result.output
    assert re.search(r"directpose_mobilenetv2 +channels_last +2 +64x64", result.stdout)
    assert "others" in result.stdout
    assert invoke("training").exit_code == 2
    asked = {}
    monkeypatch.setattr(training_room, "benchmark_training", lambda recipes, *rest, **more: asked.update(recipes))
    invoke("training", "rsn_small", "--set", "train.seed=7")
    assert asked["rsn_small"].train.seed == 7


def report_of(plan):
    part = Latency(12.5, 10.25)
    stages = dict.fromkeys(("load", "preprocess", "network", "decode", "draw"), part)
    machine = {"processor": "abacus", "threads": 1, "cores": 2, "load": 0.5, "torch": "2"}
    product = {"side": 64, "gmacs_per_second": 50.0, "gmacs_per_processor_second": 60.0}
    models = [
        ModelRow(
            plan.models[0], False, "torch", 1, ((800, 1088), (64, 96)), 36_000_000, 10**11, stages, part, 80.0, 0.78,
            0.7, 5, {"peak": 1234.5},
        ),
        ModelRow("a.onnx", True, "ONNX", 1, ((64, 64),), None, None, {"network": part}, part, 80.0, None, None, 5),
    ]  # fmt: skip
    people = [
        PeopleRow("m", 50, 2000, True, 50, part, part, part, 1.0349),
        PeopleRow("f", 1, None, False, 1, part, None, part, None),
    ]
    sizes, rivals = [SizeRow("m", ((400, 544),), 10**10, part, part, 321.0)], [ContestRow("k", 20, 10**9, part, 1.75)]
    return Report(machine, "processor", plan.rounds, product, models, people, sizes, rivals, ["this by that"])


def test_models_on_the_command_line(monkeypatch):
    plans = []

    def measure(plan, advance):
        plans.append(plan)
        return report_of(plan)

    monkeypatch.setattr(run_room, "benchmark", measure)
    options = "--runtime torch,onnx --size 800x1088 --batch 1,8 --scales 1,2 --no-contest --no-memory --rounds 2 --half"
    result = invoke("rsn18", "b.safetensors", *options.split(), "--people", "")
    assert result.exit_code == 0, result.output
    (plan,) = plans
    assert (plan.models, plan.runtimes, plan.size) == (("rsn18", "b.safetensors"), ("torch", "onnx"), (800, 1088))
    assert (plan.batches, plan.people, plan.scales) == ((1, 8), (), (1.0, 2.0))
    assert (plan.contest, plan.memory, plan.compiled, plan.half) == (False, False, False, True)
    out = result.stdout
    assert "abacus, 1 of 2 threads, load 0.5" in out
    assert re.search(r"rsn18 \(random\) +torch +1 +800x1088\+64x96 +36.0 +100.00( +10.[23]){5} +80.00 +78 % +1234", out)
    assert re.search(r"^m +50 +50 +2000 forced .* \+3.5 %$", out, flags=re.MULTILINE)
    assert "Not measured: this by that" in out
    assert "Random weights find nobody" in out
    assert json.loads(invoke("rsn18", "--json").stdout)["contest"][0]["slower"] == 1.75
    assert invoke().exit_code == 0
    assert plans[-1].models == ("default",)


@pytest.mark.parametrize(
    "arguments",
    [("--size", "800"), ("--people", "1;2"), ("--scales", "a"), ("default", "--set", "train.seed=1")],
    ids=" ".join,
)
def test_mistakes_are_usage_errors(arguments):
    assert invoke(*arguments).exit_code == 2


@pytest.mark.parametrize("arguments", [("rsn81",), ("default", "--runtime", "onyx"), ("training", "no_recipe")])
def test_unknown_names_are_told_in_one_line(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
