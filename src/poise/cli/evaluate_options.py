"""The options of ``poise evaluate`` that no other verb has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Annotations = Annotated[Path, typer.Option(help="COCO, CrowdPose or MPII file, or the YAML file of a YOLO data set.")]
Compared = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MODEL]...", help="Models to compare with the first; one with commas is an ensemble."),
]
Images = Annotated[Path | None, typer.Option(help="Folder of its pictures [default: where they usually are].")]
ResultFiles = Annotated[
    list[Path] | None, typer.Option(help="COCO results in a file, instead of or beside models; may be repeated.")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Write the poses as COCO results to this file.")]
Report = Annotated[
    Path | None, typer.Option(help="Write a report with plots and pictures of the worst cases to this folder.")
]
Details = Annotated[
    bool,
    typer.Option("--details", help="Also tell what each kind of error costs, groups, keypoints, PCK; of MPII, joints."),
]
Bootstrap = Annotated[
    int | None,
    typer.Option(min=0, help="Intervals from so many resampled sets of pictures [default: 1000 to compare, or 0]."),
]
Seed = Annotated[int, typer.Option(min=0, help="Of the resampled pictures.")]
TruthScores = Annotated[
    bool,
    typer.Option("--truth-scores", help="Rank poses by their likeness to the truth: what better scores would give."),
]
SkeletonName = Annotated[
    str | None, typer.Option(help="What the keypoints are: a built-in skeleton or a YAML file, if not as annotated.")
]
CrowdLimits = Annotated[str, typer.Option(help="CrowdPose: crowd indices from which pictures are medium and hard.")]
Kind = Annotated[
    str, typer.Option(help="Format of the annotations: coco, crowdpose, mpii, yolo, or auto to recognise it.")
]
PartName = Annotated[
    str | None,
    typer.Option(
        "--split",
        help="Only this part: train, val or test of a YOLO data set; train or val of an MPII file with isValidation "
        "[default: all].",
    ),
]
HeadBoxes = Annotated[
    Path | None,
    typer.Option(help="MPII: head boxes, a .mat or JSON file [default: gt_valid.mat beside the annotations]."),
]
Pckh = Annotated[
    str, typer.Option(help="MPII: official takes a joint at exactly the limit for right, mmpose does not.")
]
