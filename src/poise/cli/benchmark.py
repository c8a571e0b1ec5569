"""``poise benchmark``: how fast models predict and recipes train, and how fast training pictures are made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from poise.cli.options import Bf16, Compile, Device, Half, Json, half_precision, progress_bar

if TYPE_CHECKING:
    from poise.train.config import RunConfig

DATA, TRAINING = "data", "training"
_ONLY = "With '{}': "


def benchmark(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL... | data RECIPE | training RECIPE...",
            help="Shipped models, checkpoints, exported files, or presets, which get random weights [default: "
            "default]; or the word 'data' and a recipe, YAML file or COCO file; or 'training' and recipes.",
        ),
    ] = None,
    runtime: Annotated[str, typer.Option(help="torch, onnx, openvino, with commas.")] = "torch",
    size: Annotated[
        str | None,
        typer.Option(help="Height x width of pictures and input, for example 800x1088 [default: the model's own]."),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(help="Pictures that run together (top-down: people), with commas [default: 1; training: 8]."),
    ] = None,
    people: Annotated[str, typer.Option(help="Numbers of people that time is measured for; '' for none.")] = (
        "0,1,5,20,50"
    ),
    scales: Annotated[str, typer.Option(help="Factors of the input's sides, likewise.")] = "0.5,0.75,1,1.25",
    contest: Annotated[bool, typer.Option(help="Also measure torchvision's Keypoint R-CNN.")] = True,
    memory: Annotated[bool, typer.Option(help="Also measure memory, in processes of their own.")] = True,
    rounds: Annotated[int, typer.Option(min=1, help="How often everything is measured; medians are told.")] = 5,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the processor [default: all].")] = None,
    device: Device = "auto",
    half: Half = False,
    bf16: Bf16 = False,
    compile: Compile = False,
    workers: Annotated[str, typer.Option(help=_ONLY.format(DATA) + "numbers of workers.")] = "0,1,2",
    batches: Annotated[int, typer.Option(min=1, help=_ONLY.format(DATA) + "batches of each measurement.")] = 20,
    data: Annotated[
        Path | None,
        typer.Option(help=_ONLY.format(DATA) + "folder that relative paths start from [default: $POISE_DATA, ./data]."),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help=_ONLY.format(DATA) + "folder of the COCO file's pictures [default: as poise data finds it]."),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="With 'data' or 'training': change a setting: KEY=VALUE.")
    ] = None,
    ways: Annotated[
        str, typer.Option(help=_ONLY.format(TRAINING) + "plain, channels_last, amp, compiled.")
    ] = "plain,channels_last,amp",
    side: Annotated[int, typer.Option(min=32, help=_ONLY.format(TRAINING) + "side of the pictures.")] = 256,
    as_json: Json = False,
) -> None:
    """Measure speed and memory, and compare them with what the machine can do.

    Everything takes turns, round after round, and every turn follows a large matrix product: its speed is what the
    machine can do at that moment, and shares are of that. With one thread they are of processor time, so that they hold
    beside other programs. Pictures show one portrait many times over.

    'data' tells how many training pictures a second are made, and how much of that is decoding and augmentation.
    'training' tells how many pictures a second recipes train on, in several ways, and which operators take the time.
    """
    names = models or ["default"]
    if threads is not None:
        from poise.benchmark.clock import use_threads

        use_threads(threads)
    if names[0] == DATA:
        _data(names[1:], data, images, settings or [], _whole(workers, "--workers"), batches, as_json)
    elif names[0] == TRAINING:
        sizes = _whole(batch or "8", "--batch")
        _training(names[1:], settings or [], tuple(ways.split(",")), sizes[0], side, rounds, device, as_json)
    else:
        if settings:
            raise typer.BadParameter("--set goes with 'data' or 'training'; a model is as it is")
        from poise.benchmark.run import Plan

        plan = Plan(
            models=tuple(names), runtimes=tuple(runtime.split(",")), size=_size(size),
            batches=_whole(batch or "1", "--batch"), people=_whole(people, "--people"),
            scales=_numbers(scales, "--scales"), contest=contest, memory=memory, rounds=rounds,
            device=device, half=half_precision(half, bf16), compiled=compile,
        )  # fmt: skip
        _models(plan, as_json)


def _models(plan: object, as_json: bool) -> None:
    from poise.benchmark.run import Plan
    from poise.benchmark.run import benchmark as measure
    from poise.cli.benchmark_output import print_report

    assert isinstance(plan, Plan)
    with progress_bar("measuring", quiet=as_json) as advance:
        report = measure(plan, advance)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        print_report(report)


def _data(
    names: list[str],
    root: Path | None,
    images: Path | None,
    settings: list[str],
    workers: tuple[int, ...],
    batches: int,
    as_json: bool,
) -> None:
    if len(names) != 1:
        raise typer.BadParameter("poise benchmark data takes one recipe, YAML file or COCO file")
    from poise.benchmark.data import benchmark_data
    from poise.cli.benchmark_output import print_data
    from poise.models import build_model
    from poise.train.launch import run_skeleton

    of_set = names[0].endswith(".json")
    config = (_config_of_set(Path(names[0]), images) if of_set else _recipe(names[0], [])).override(settings)
    config = config if root is None else config.model_copy(update={"data_root": str(root)})
    skeleton = run_skeleton(config.skeleton, config.located_data())
    spec = build_model(config.model, skeleton).view
    with progress_bar("measuring", quiet=as_json) as advance:
        report = benchmark_data(config.located_data(), spec, skeleton, workers, batches, advance=advance)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        print_data(report)


def _training(
    names: list[str],
    settings: list[str],
    ways: tuple[str, ...],
    batch: int,
    side: int,
    rounds: int,
    device: str,
    as_json: bool,
) -> None:
    if not names:
        raise typer.BadParameter("poise benchmark training takes recipes or YAML files")
    from poise.benchmark.training import benchmark_training
    from poise.cli.benchmark_output import print_training

    recipes = {name: _recipe(name, settings) for name in names}
    with progress_bar("measuring", quiet=as_json) as advance:
        report = benchmark_training(recipes, ways, batch, side, rounds, device, advance=advance)
    if as_json:
        typer.echo(json.dumps(report.to_dict()))
    else:
        print_training(report)


def _recipe(name: str, settings: list[str]) -> RunConfig:
    from poise.train.config import RunConfig
    from poise.train.recipes import recipe

    is_file = name.endswith((".yaml", ".yml"))
    return (RunConfig.from_yaml(name) if is_file else recipe(name)).override(settings)


def _config_of_set(path: Path, images: Path | None) -> RunConfig:
    """The data of one set in the pipeline of the small recipe."""
    from poise.data.config import SourceConfig
    from poise.data.formats import find_images
    from poise.train.recipes import recipe

    if not path.is_file():
        raise FileNotFoundError(f"annotation file {path} does not exist")
    config = recipe("directpose_mobilenetv2")
    folder = find_images(path) if images is None else images
    source = SourceConfig(annotations=str(path.resolve()), images=str(folder.resolve()), kind="auto")
    data = config.data.model_copy(update={"sources": (source,), "negatives": (), "val": None})
    return config.model_copy(update={"data": data, "skeleton": "data"})


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise typer.BadParameter(f"--size {text!r}: write height x width, for example 800x1088") from None


def _numbers(text: str, option: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r}: write numbers with commas") from None


def _whole(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"{option} {text!r}: write whole numbers with commas") from None
