"""Poses in files and in other libraries' hands.

| format | where it goes | reads back |
|---|---|---|
| ``coco`` | one JSON file in COCO's form | `read_coco_poses` |
| ``csv`` | one table, a row a pose | `read_csv` |
| ``parquet`` | the same table | pandas, polars, DuckDB ... |
| ``yolo`` | a folder with a ``.txt`` a picture | |
| ``openpose`` | a folder with a ``.json`` a picture | |

Everything is written while it comes: a long video needs no more memory than a short one.
"""

from __future__ import annotations

from poise.results.coco import CocoWriter, read_coco_poses
from poise.results.folders import OpenPoseWriter, YoloWriter
from poise.results.others import to_supervision
from poise.results.saving import FORMATS, load, open_writer, save
from poise.results.tables import CsvWriter, ParquetWriter, read_csv, to_dataframe
from poise.results.writer import PoseSink

__all__ = [
    "FORMATS",
    "CocoWriter",
    "CsvWriter",
    "OpenPoseWriter",
    "ParquetWriter",
    "PoseSink",
    "YoloWriter",
    "load",
    "open_writer",
    "read_coco_poses",
    "read_csv",
    "save",
    "to_dataframe",
    "to_supervision",
]
