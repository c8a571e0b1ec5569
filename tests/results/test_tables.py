"""Poses as tables of other libraries."""

import sys

import numpy as np
import pytest
from poses_for_files import a_video, some_poses

from poise import results
from poise.extras import MissingLibraryError, needs
from poise.skeletons import LSP14
from poise.types import Poses


def test_dataframe():
    pandas = pytest.importorskip("pandas")
    video = a_video()
    table = results.to_dataframe(video)
    assert isinstance(table, pandas.DataFrame)
    assert table.groupby("picture").score.count().tolist() == [2, 0, 3]
    assert table.picture.tolist() == [0, 0, 1, 2, 2, 2]
    assert table["id"].tolist()[:2] == [-1, 0]
    assert table["id"].isna().tolist() == [False, False, True, False, False, False]
    np.testing.assert_allclose(table.left_wrist_x.to_numpy()[:2], video[0].points("left_wrist")[:, 0], atol=1e-4)
    assert str(table.nose_visibility.dtype) == "Int64"
    assert len(results.to_dataframe([])) == 0
    assert list(results.to_dataframe(Poses.empty()).columns) == list(table.columns)
    with pytest.raises(ValueError, match=r"one skeleton, not \['coco17', 'lsp14'\]"):
        results.to_dataframe([Poses.empty(), Poses.empty(LSP14)])


def test_parquet_equals_the_dataframe(tmp_path):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    video = a_video()
    results.save(tmp_path / "p.parquet", video)
    read = pandas.read_parquet(tmp_path / "p.parquet")
    expected = results.to_dataframe(video)
    assert list(read.columns) == list(expected.columns)
    for name in expected.columns:
        if name != "source":
            np.testing.assert_allclose(
                read[name].to_numpy(float, na_value=np.nan), expected[name].to_numpy(float, na_value=np.nan)
            )
    assert read.source.tolist() == expected.source.tolist()


def test_csv_equals_the_dataframe(tmp_path):
    pandas = pytest.importorskip("pandas")
    results.save(tmp_path / "p.csv", a_video())
    read = pandas.read_csv(tmp_path / "p.csv")
    expected = results.to_dataframe(a_video())
    np.testing.assert_allclose(read.score, expected.score)
    np.testing.assert_allclose(read.right_knee_y, expected.right_knee_y)


def test_supervision():
    supervision = pytest.importorskip("supervision")
    poses = some_poses(2, ids=[4, 9])
    poses.keypoints[1, 5] = np.nan
    points = results.to_supervision(poses)
    assert isinstance(points, supervision.KeyPoints)
    np.testing.assert_array_equal(points.xy[0], poses.keypoints[0])
    np.testing.assert_array_equal(points.xy[1, 5], [0, 0])
    np.testing.assert_array_equal(points.keypoint_confidence, poses.keypoint_scores)
    assert points.data["tracker_id"].tolist() == [4, 9]
    assert len(results.to_supervision(Poses.empty())) == 0
    assert len(points[0:1]) == 1


def test_a_missing_library_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingLibraryError, match=r"needs pandas, which is not installed: pip install 'poise\[tables"):
        results.to_dataframe([])
    with pytest.raises(MissingLibraryError, match=r"reading needs no_such, .*poise\[x\]"):
        needs("no_such.deep", "x", "reading")


def test_an_error_inside_a_library_is_its_own(tmp_path, monkeypatch):
    (tmp_path / "broken_library.py").write_text("import what_it_needs\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="what_it_needs"):
        needs("broken_library", "x", "reading")
