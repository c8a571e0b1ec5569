"""``poise data``: looking at annotated sets of pictures, and changing their form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from poise.cli.data_label import label
from poise.cli.errors import guarded
from poise.cli.examples import epilog
from poise.cli.options import Json, progress_bar

if TYPE_CHECKING:
    from poise.data.problems import CheckReport
    from poise.data.records import PoseDataset
    from poise.data.stats import DatasetStatistics, Spread

DATA_SET = Annotated[
    Path, typer.Argument(metavar="PATH", help="COCO, CrowdPose or MPII file, or the YAML file of a YOLO data set.")
]
Images = Annotated[
    Path | None, typer.Option(help="Folder of the pictures [default: where they usually are beside PATH].")
]
Kind = Annotated[str, typer.Option(help="coco, crowdpose, mpii, yolo, or auto to recognise it.")]
Skeleton = Annotated[
    str | None,
    typer.Option(help="What the keypoints are: coco17, crowdpose14, mpii16, lsp14, a YAML file [default: PATH says]."),
]
AUTO = "auto"


def check(
    path: DATA_SET,
    images: Images = None,
    kind: Kind = AUTO,
    skeleton: Skeleton = None,
    decode: Annotated[bool, typer.Option(help="Decode every picture, not only its header.")] = True,
    as_json: Json = False,
) -> None:
    """List everything that is wrong with a data set.

    Each line names the file, the place in it, what was found and what was expected. The exit code is 1 if one of them
    is an error; warnings may be meant so.
    """
    from poise.data.check import check_dataset

    with progress_bar("checking") as advance:
        report = check_dataset(path, images, kind, skeleton, decode=decode, progress=advance)
    typer.echo(json.dumps(report.to_dict()) if as_json else _check_text(report))
    if report.errors:
        raise typer.Exit(1)


def stats(
    path: DATA_SET,
    images: Images = None,
    kind: Kind = AUTO,
    skeleton: Skeleton = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the numbers into this PNG file.")] = None,
    as_json: Json = False,
) -> None:
    """Count pictures, people and keypoints, and tell how large they are."""
    from poise.data.stats import dataset_statistics

    dataset = _read(path, images, kind, skeleton)
    numbers = dataset_statistics(dataset)
    if plot is not None:
        _save_plot(dataset, plot)
    typer.echo(json.dumps(numbers.to_dict()) if as_json else _stats_text(numbers))


def show(
    path: DATA_SET,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the drawn pictures, or a .jpg or .png file for one sheet.")
    ] = Path("poise-data"),
    images: Images = None,
    kind: Kind = AUTO,
    skeleton: Skeleton = None,
    count: Annotated[int, typer.Option(min=0, help="How many pictures; 0 shows all.")] = 20,
    seed: Annotated[int | None, typer.Option(help="Draw the pictures at random [default: the first].")] = None,
    boxes: Annotated[bool, typer.Option(help="Draw boxes.")] = True,
    augment: Annotated[
        str | None,
        typer.Option(
            help="Show what training makes of the data set: one augmentation alone (none, scale, rotation, "
            "translation, flip, crop, colour, blur, noise, dropout, half_body, upright, mosaic, mixup, paste, "
            "multi_scale), or all of a recipe or YAML file."
        ),
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="With --augment, change a setting: KEY=VALUE.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw the truth on the pictures: people, boxes, and regions that are ignored (crossed out).

    With --augment, what is drawn are the first pictures that a training run would see.
    """
    if settings and augment is None:
        raise typer.BadParameter("--set needs --augment")
    dataset = _read(path, images, kind, skeleton)
    with progress_bar("drawing") as advance:
        if augment is not None:
            from poise.data.show import show_training

            data, spec = _pipeline(augment, settings or [], dataset)
            total = count or len(dataset)
            written = show_training(
                dataset, data, spec, out, count=total, seed=seed or 0, show_boxes=boxes, progress=advance
            )
        else:
            from poise.data.show import show_dataset

            written = show_dataset(dataset, out, count=count or None, seed=seed, show_boxes=boxes, progress=advance)
    if as_json:
        typer.echo(json.dumps({"drawn": [str(file) for file in written]}))
        return
    for file in written:
        typer.echo(file)


def convert(
    path: DATA_SET,
    out: Annotated[Path, typer.Argument(help="JSON file (coco, crowdpose, mpii) or folder (yolo) to write.")],
    to: Annotated[str, typer.Option(help="Format to write: coco, crowdpose, mpii or yolo.")],
    images: Images = None,
    kind: Kind = AUTO,
    skeleton: Skeleton = None,
    part: Annotated[str, typer.Option("--split", help="Part of a YOLO data set to write: train, val, test.")] = "train",
    link: Annotated[bool, typer.Option("--link", help="Link pictures instead of copying them (yolo).")] = False,
    as_json: Json = False,
) -> None:
    """Write a data set in another format."""
    from poise.data.convert import convert_dataset

    done = convert_dataset(path, out, to, images=images, kind=kind, skeleton=skeleton, split=part, link=link)
    if as_json:
        counts = {"pictures": len(done.dataset), "people": done.dataset.person_count}
        skeleton_name = done.dataset.skeleton.name
        typer.echo(
            json.dumps({"path": str(done.path), "images": str(done.images), **counts, "skeleton": skeleton_name})
        )
        return
    typer.echo(f"{done.path}: {_counted(done.dataset)}, pictures in {done.images}")


def split(
    path: DATA_SET,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the files.")],
    parts: Annotated[str, typer.Option(help="Names and shares of the parts.")] = "train=0.8,val=0.2",
    seed: Annotated[int, typer.Option(help="Another one gives other parts.")] = 0,
    by_people: Annotated[
        bool, typer.Option("--by-people", help="Give every part its share of pictures with few and with many people.")
    ] = False,
    images: Images = None,
    kind: Kind = AUTO,
    skeleton: Skeleton = None,
    as_json: Json = False,
) -> None:
    """Deal the pictures of a data set out to parts, one COCO file each."""
    from poise.data.split import part_sizes, split_dataset

    shares = _shares(parts)
    files = split_dataset(
        path, out, shares, seed=seed, by_people=by_people, images=images, kind=kind, skeleton=skeleton
    )
    sizes = part_sizes(files)
    if as_json:
        typer.echo(json.dumps({name: {"path": str(files[name]), **sizes[name]} for name in files}))
        return
    for name, file in files.items():
        typer.echo(f"{file}: {sizes[name]['pictures']} pictures, {sizes[name]['annotations']} annotations")


app = typer.Typer(
    help="Look at annotated sets of pictures, and change their form.",
    epilog=epilog("data"),
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (check, show, stats, convert, split, label):
    app.command(verb.__name__)(guarded(verb))


def _read(path: Path, images: Path | None, kind: str, skeleton: str | None) -> PoseDataset:
    from poise.data.formats import read_dataset

    return read_dataset(path, images, kind, skeleton)


def _counted(dataset: PoseDataset) -> str:
    return f"{len(dataset)} pictures, {dataset.person_count} people, skeleton {dataset.skeleton.name}"


def _check_text(report: CheckReport) -> str:
    lines = [str(problem) for problem in report.problems]
    lines += [f"{count:6} {kind}" for kind, count in report.kinds.items()]
    total = f"{report.pictures} pictures, {report.people} people"
    verdict = f"{report.errors} errors, {report.warnings} warnings" if report.problems else "nothing is wrong"
    known = f" ({report.format})" if report.format else ""
    return "\n".join([*lines, f"{report.path}{known}: {total}: {verdict}"])


def _save_plot(dataset: PoseDataset, path: Path) -> None:
    from PIL import Image

    from poise.data.stats_plot import plot_statistics
    from poise.files import replacing

    if path.suffix.lower() != ".png":
        raise ValueError(f"--plot {path}: the name must end in .png")
    with replacing(path) as temporary:
        Image.fromarray(plot_statistics(dataset)).save(temporary)


def _stats_text(numbers: DatasetStatistics) -> str:
    people = max(1, numbers.people)
    lines = [
        f"{numbers.name}: {numbers.pictures} pictures, {numbers.people} people, skeleton {numbers.skeleton}",
        f"{numbers.empty} pictures without people, {numbers.regions} regions to ignore",
        f"{numbers.small} small, {numbers.medium} medium, {numbers.large} large people",
        "",
        f"{'':22}{'least':>9}{'25 %':>9}{'median':>9}{'75 %':>9}{'most':>9}",
        _spread_line("picture width", numbers.widths),
        _spread_line("picture height", numbers.heights),
        _spread_line("size of a person", numbers.person_sizes),
        _spread_line("box / picture", numbers.person_shares),
        _spread_line("keypoints a person", numbers.labelled_a_person),
    ]
    if numbers.crowd_index is not None:
        lines.append(_spread_line("crowd index", numbers.crowd_index))
    lines += ["", f"{'keypoint':22}{'visible':>9}{'occluded':>9}{'none':>9}{'labelled':>10}{'sigma':>8}"]
    lines += [
        f"{k.name:22}{k.visible:9}{k.occluded:9}{k.unlabelled:9}{100 * k.labelled / people:8.1f} %{k.sigma:8.3f}"
        for k in numbers.keypoints
    ]
    return "\n".join(lines)


def _spread_line(name: str, spread: Spread) -> str:
    values = (spread.low, spread.quarter, spread.middle, spread.three_quarters, spread.high)
    return f"{name:22}" + "".join(f"{value:9.2f}" if value % 1 else f"{value:9.0f}" for value in values)


def _shares(text: str) -> dict[str, float]:
    """``train=0.8,val=0.2`` as a mapping; a usage error if it is something else."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not name.replace("-", "").replace("_", "").isalnum() or name in shares or not number > 0:
            raise typer.BadParameter(f"--parts {text!r}: write NAME=SHARE with commas, for example train=0.8,val=0.2")
        shares[name] = number
    return shares


def _pipeline(name: str, settings: list[str], dataset: PoseDataset) -> tuple[Any, Any]:
    """Data settings of an augmentation, recipe or file, and what its model wants to see."""
    from poise.data.augmentations import CANVAS, CROPS, NOTHING, shown
    from poise.models import build_model
    from poise.settings import nearest
    from poise.train.config import RunConfig
    from poise.train.recipes import RECIPES
    from poise.train.recipes import recipe as named_recipe

    if name.endswith((".yaml", ".yml")):
        config = RunConfig.from_yaml(name)
    elif name in RECIPES:
        config = named_recipe(name)
    elif name in (NOTHING, *CANVAS, *CROPS):
        config = named_recipe("directpose_mobilenetv2" if name in (NOTHING, *CANVAS) else "rsn_small")
        config = config.model_copy(update={"data": shown(name, config.data)})
    else:
        raise ValueError(
            f"--augment {name!r}: there is no such augmentation or recipe{nearest(name, [*CANVAS, *CROPS, *RECIPES])}"
        )
    config = config.override(settings)
    return config.data, build_model(config.model, dataset.skeleton).view
