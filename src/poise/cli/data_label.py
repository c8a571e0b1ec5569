"""``poise data label``: keypoints that nobody labelled, by a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from poise.cli.errors import complain
from poise.cli.options import Device, Json, progress_bar


def label(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="COCO annotation file.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="COCO file to write.")],
    model: Annotated[str, typer.Option("--model", "-m", help="Name or path of a top-down model.")] = "rsn_small",
    images: Annotated[
        Path | None, typer.Option(help="Folder of the pictures [default: where they usually are beside PATH].")
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out keypoints that the model is less sure of.")
    ] = 0.55,
    agreement: Annotated[
        float, typer.Option(min=0, max=1, help="Share of a person's labels that the model must meet.")
    ] = 0.6,
    turns: Annotated[bool, typer.Option(help="Look at each person turned by quarters, too.")] = True,
    flip: Annotated[bool, typer.Option(help="Look at each person mirrored, too.")] = True,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Add keypoints that are not labelled, where a model is sure of them: self-training.

    A person's pose counts only where it meets most of the labels that are there; these are never changed. What was
    added is named in each annotation under "labelled_by_model". Look at the result (poise data show) before training.
    """
    from poise.data.formats import find_images
    from poise.data.json_files import load_json
    from poise.files import write_text
    from poise.predict.boxes import Boxes
    from poise.predict.labelling import label_missing
    from poise.predict.pipeline import pipeline
    from poise.predict.topdown import TopDownPredictor

    if out.resolve() == path.resolve():
        raise ValueError(f"--out {out} is the file that is read; name another one")
    document = load_json(path)
    if not isinstance(document, dict):
        raise ValueError(f"{path}: these are no COCO annotations")
    predictor = pipeline(Boxes({}), model, device=device)
    if not isinstance(predictor, TopDownPredictor):
        raise ValueError(f"{model} is exported; labelling needs its checkpoint")
    complain(f"running on {predictor.running}")
    folder = images if images is not None else find_images(path)
    with progress_bar("labelling", quiet=as_json) as advance:
        done = label_missing(
            document, folder, predictor, min_score=min_score, agreement=agreement, turns=turns, flip=flip,
            progress=advance,
        )  # fmt: skip
    write_text(out, json.dumps(done.document))
    numbers = {"people": done.people, "agreed": done.agreed, "changed": done.changed, "added": dict(done.added)}
    if as_json:
        typer.echo(json.dumps({"path": str(out), **numbers}))
        return
    told = f"the model met the labels of {done.agreed} and added keypoints to {done.changed}"
    typer.echo(f"{done.people} people lack keypoints; {told}")
    for name, count in done.added.items():
        typer.echo(f"{count:6} {name}")
    typer.echo(out)
