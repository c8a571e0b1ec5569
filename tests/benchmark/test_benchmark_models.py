"""Models that are measured: random weights with forced candidates, stages, memory, contenders, runtimes."""

import dataclasses

import pytest
import torch

from poise.benchmark import run as run_room
from poise.benchmark.clock import Spent, Stopwatch, Turn, take_turns
from poise.benchmark.counting import predicted_macs
from poise.benchmark.memory import Job, peak_memory
from poise.benchmark.models import Bench, FileBench
from poise.benchmark.rcnn import KeypointRCNN, picture_tensor
from poise.benchmark.run import Plan, benchmark
from poise.benchmark.subjects import Subject, class_bias, class_layer, find_subject, set_class_bias, spread_classes
from poise.benchmark.tasks import STAGES
from poise.models import DirectPose, DirectPoseConfig, RSNConfig, SMPRConfig, build_model, preset
from poise.predict.devices import Running, running
from poise.zoo import shipped
from poise.zoo.counting import count

CPU = torch.device("cpu")
SIZE = (128, 160)


def small(system):
    """An untrained model of each system, as small as its own preset for the small machine is."""
    name = {"directpose": "directpose_mobilenetv2", "smpr": "smpr_mobilenetv2", "rsn": "rsn_small"}[system]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Subject(name, build_model(preset(name)).eval(), trained=False)


@pytest.fixture
def quick(monkeypatch):
    """Untrained models that are built at once, and no large matrices."""
    monkeypatch.setattr(run_room, "find_subject", lambda name: dataclasses.replace(small(name), name=name))
    monkeypatch.setattr("poise.benchmark.machine.SIDE_CPU", 192)


def test_presets_have_random_weights_and_models_their_own():
    random = find_subject("rsn18")
    assert not random.trained
    assert random.sees_people
    state = torch.random.get_rng_state()
    again = find_subject("rsn18")
    assert torch.equal(state, torch.random.get_rng_state())
    for one, other in zip(random.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(ValueError, match="rsn18"):
        find_subject("rsn81")
    if shipped():
        assert find_subject("default").trained


@pytest.mark.parametrize("system", ["directpose", "smpr"])
@pytest.mark.parametrize("wanted", [0, 1, 60])
def test_candidates_are_forced(system, wanted):
    model, images = small(system).model, torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    spread_classes(model, images)
    set_class_bias(model, class_bias(model, images, wanted))
    with torch.inference_mode():
        logits = torch.cat([level.flatten() for level in model(images).logits])
        (poses,) = model.detect(images, [SIZE])
    assert logits.std() == pytest.approx(2.0, rel=1e-3)
    assert int((logits.sigmoid() > model.config.score_threshold).sum()) == wanted
    assert len(poses) <= wanted
    assert (len(poses) == 0) == (wanted == 0)


def test_crops_have_no_classes():
    model, images = small("rsn").model, torch.zeros(1, 3, 64, 64)
    spread_classes(model, images)
    assert class_layer(model) is class_bias(model, images, 5) is None
    set_class_bias(model, None)


@pytest.mark.parametrize("system", ["directpose", "smpr", "rsn"])
def test_a_turn_has_all_stages(tmp_path, system):
    bench = Bench(small(system), Running(CPU), tmp_path, None if system == "rsn" else SIZE)
    watch = Stopwatch(CPU)
    bench.task(2, people=1)(watch)
    assert set(watch.stages) == set(STAGES)
    assert all(spent.wall > 0 for spent in watch.stages.values())
    assert watch.stages["network"].wall > watch.stages["load"].wall
    assert watch.counts["found"] >= 1
    assert bench.input_sizes() == (SIZE if system != "rsn" else bench.subject.model.view.size,)


def test_nobody_is_no_reason_to_stop(tmp_path):
    for system in ("directpose", "rsn"):
        bench, watch = Bench(small(system), Running(CPU), tmp_path), Stopwatch(CPU)
        task = bench.task(0) if system == "rsn" else bench.task(1, 0)
        task(watch)
        assert watch.counts["found"] == 0


def test_inputs_grow_by_their_sides(tmp_path):
    bench = Bench(small("directpose"), Running(CPU), tmp_path, (128, 256))
    assert bench.input_sizes(0.5) == ((64, 128),)
    assert bench.macs(1, 2.0) == pytest.approx(4 * bench.macs(), rel=0.05)
    with pytest.raises(ValueError, match="looks at crops"):
        Bench(small("rsn"), Running(CPU), tmp_path, SIZE)


def test_a_model_that_looks_twice_is_measured_so(tmp_path):
    twice = dataclasses.replace(
        small("smpr"), trained=True, metadata={"scales": [[128, 128], [96, 96]], "min_score": 0}
    )
    spread_classes(twice.model, torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(1)))
    set_class_bias(twice.model, 0.0)
    bench = Bench(twice, Running(CPU), tmp_path)
    assert bench.input_sizes() == ((96, 128), (96, 96))
    looked = [predicted_macs(twice.model, size) for size in bench.input_sizes()]
    assert bench.macs(3) == 3 * sum(looked)
    assert bench.input_sizes(0.5) == ((64, 64), (64, 64))
    watch, one = Stopwatch(CPU), Stopwatch(CPU)
    bench.task(people=1)(watch)
    once = Bench(twice, Running(CPU), tmp_path, once=True)
    assert once.input_sizes() == ((96, 128),)
    assert once.macs() == looked[0]
    once.task(people=1)(one)
    assert watch.counts["candidates"] > one.counts["candidates"]


def test_beside_exported_files_a_model_looks_once(quick, monkeypatch):
    """They look once, too."""
    pair = {"scales": [[128, 128], [96, 96]]}
    monkeypatch.setattr(
        run_room, "find_subject", lambda name: dataclasses.replace(small(name), trained=True, metadata=pair)
    )
    nothing_else = {"people": (), "scales": (), "contest": False, "memory": False, "rounds": 1}
    for runtimes, looks in ((("torch",), 2), (("torch", "onnx"), 1)):
        monkeypatch.setattr(Bench, "exported", lambda self, *_: self.task())
        report = benchmark(Plan(("smpr",), runtimes=runtimes, **nothing_else))
        assert [len(row.inputs) for row in report.models] == [looks] * len(runtimes)


def test_multiply_adds_leave_out_what_only_training_needs():
    model = DirectPose(preset("directpose_r50"))
    branch = sum(p.numel() for p in model.head.heatmap.parameters() if p.dim() == 4)
    whole, size = count("directpose_r50"), (480, 640)
    cells = size[0] // 8 * (size[1] // 8)
    assert predicted_macs(model, size) == whole.macs - branch * cells
    assert model.head.heatmap is not None
    crops = build_model(preset("rsn18"))
    drawn = DirectPose(model.config.model_copy(update={"snap": 0.25}))
    assert predicted_macs(drawn, size) == whole.macs
    assert 0.5 < predicted_macs(crops, crops.view.size) / count("rsn18").macs < 1


def test_a_report_of_everything(quick):
    told = []
    plan = Plan(("directpose", "rsn"), size=SIZE, batches=(1, 2), people=(0, 1, 3), scales=(1.0, 1.5), contest=False,
                memory=False, rounds=1, device="cpu")  # fmt: skip
    report = benchmark(plan, lambda done, total: told.append((done, total)))
    assert [(row.name, row.batch) for row in report.models] == [(n, b) for n in ("directpose", "rsn") for b in (1, 2)]
    for row in report.models:
        assert 0 < row.peak_share_with_decode < row.peak_share
        assert row.per_second == pytest.approx(1e3 * row.batch / row.work.wall, rel=0.01)
        assert row.work.wall == pytest.approx(
            sum(row.stages[n].wall for n in ("preprocess", "network", "decode")), 0.01
        )
    assert report.models[1].macs == 2 * report.models[0].macs
    by_people = {(row.name, row.people): row for row in report.people}
    assert [by_people["directpose", n].candidates for n in (0, 1, 3)] == [0, 40, 120]
    assert by_people["directpose", 1].growth == 1.0
    assert by_people["directpose", 1].forced
    assert not by_people["rsn", 1].forced
    assert by_people["rsn", 3].growth > by_people["rsn", 0].growth
    assert by_people["rsn", 0].work.processor < by_people["rsn", 1].work.processor
    assert [row.inputs for row in report.sizes] == [(SIZE,), ((192, 256),)]
    assert report.sizes[1].macs > 2 * report.sizes[0].macs
    assert report.left_out == ["rsn by size: it looks at crops of one size"]
    assert told[-1][0] == told[-1][1] == 2 * (4 + 6 + 2)
    assert report.to_dict()["models"][0]["stages"]["network"]["wall"] > 0


def test_beside_keypoint_rcnn(monkeypatch, quick, tmp_path):
    """The contender stands in here; that it finds whom it is told to is the next test's."""

    class Stand:
        def __init__(self, how):
            self.device = how.device

        def find(self, image, people):
            assert image.shape == (3, 480, 640)
            return people

        def macs(self, image, people):
            return 10**9 * (1 + people)

    monkeypatch.setattr(run_room, "KeypointRCNN", Stand)
    report = benchmark(Plan(("rsn",), people=(), scales=(), memory=False, rounds=1, device="cpu"))
    assert [(row.name, row.people) for row in report.contest] == [
        (name, people) for people in (1, 20) for name in ("rsn", "keypointrcnn_resnet50_fpn")
    ]
    assert report.contest[0].slower == report.contest[2].slower == 1
    assert report.contest[1].macs == 2 * 10**9
    assert report.contest[3].slower < report.contest[1].slower


@pytest.mark.slow
def test_keypoint_rcnn_finds_as_many_as_it_is_told():
    network, image = (
        KeypointRCNN(running("cpu"), (96, 128)),
        picture_tensor(torch.zeros(96, 128, 3, dtype=torch.uint8), CPU),
    )
    assert [network.find(image, people) for people in (0, 1, 7)] == [0, 1, 7]
    assert network.macs(image, 7) > network.macs(image, 1) > 10**9


def test_what_cannot_be_measured_is_told():
    for change, words in (
        ({"models": ()}, "at least one"),
        ({"runtimes": ("torch", "onyx")}, "did you mean 'onnx'"),
        ({"batches": (0,)}, "positive"),
        ({"people": (-1,)}, "not negative"),
        ({"scales": (0.0,)}, "positive"),
    ):
        with pytest.raises(ValueError, match=words):
            benchmark(Plan(**{"models": ("default",), **change}))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        benchmark(Plan(("nowhere.onnx",), device="cpu"))


def test_onnx_runs_the_same_model(tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    bench, watch, again = Bench(small("rsn"), Running(CPU), tmp_path), Stopwatch(CPU), Stopwatch(CPU)
    bench.exported("onnx", 2, 1)(watch)
    assert watch.counts["found"] == 2
    (file,) = tmp_path.glob("*.onnx")
    alone = FileBench(str(file), "cpu", 1, tmp_path)
    alone.task(3)(again)
    assert again.counts["found"] == 3
    assert set(again.stages) == {"load", "network", "draw"}
    assert alone.input_sizes() == bench.input_sizes()


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own():
    told = peak_memory(Job("rsn_small", None, 2, "cpu", 1))
    assert 100 < told["imports"] < told["loaded"] <= told["peak"] < 4000
    with pytest.raises(ValueError, match="unknown"):
        peak_memory(Job("rsn81", None, 2, "cpu", 1))


def test_growth_is_against_one_person_by_the_product():
    """Processor time that everything takes twice as long in one half of the run does not count as growth."""
    from poise.benchmark.clock import Series

    slow = Series((Turn({"network": Spent(8, 8)}, {}, Spent(2, 2)),))
    fast = Series((Turn({"network": Spent(4, 4)}, {}, Spent(1, 1)),))
    assert slow.of_product(["network"], "wall") == fast.of_product(["network"], "wall")


def test_configs_are_those_of_three_systems():
    kinds = {type(small(system).model.config) for system in ("directpose", "smpr", "rsn")}
    assert kinds == {DirectPoseConfig, SMPRConfig, RSNConfig}
    assert take_turns({}, lambda watch: None, 1, CPU) == {}
