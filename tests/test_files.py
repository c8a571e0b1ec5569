import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from poise.files import fitting, remove_leftovers, replacing, source_stem, write_bytes, write_text


def test_writes_whole_files_and_makes_folders(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "ä")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "ä".encode()
    write_bytes(tmp_path / "a" / "b.txt", b"x")
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_an_error_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "f.bin"
    path.write_bytes(b"old")

    def fail() -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["f.bin"]


KILLED = """
import os, signal, sys
from poise.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "f[1].bin"
    path.write_bytes(b"old")
    result = subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    assert result.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / ".f[1]-notes.bin").write_bytes(b"mine")
    remove_leftovers(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".f[1]-notes.bin", "f[1].bin"]


def test_new_files_have_ordinary_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    write_bytes(tmp_path / "ours", b"")
    assert (tmp_path / "ours").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a/b.c.jpg", "b.c"), ("-", "stdin"), ("rtsp://host/door", "door"), ("http://host/v.mjpg?user=a/b", "v"),
        ("http://host:80", "host-80"), ("camera:0", "camera-0"), ("who?.png", "who-"), ("", "stream"),
    ],
)  # fmt: skip
def test_files_made_of_a_source_have_its_name(name, stem):
    assert source_stem(name) == stem


def test_the_longest_name_that_a_file_can_have_is_written(tmp_path):
    path = tmp_path / f"{'人' * 83}a.jpg"
    with replacing(path) as temporary:
        assert len(os.fsencode(temporary.name)) < 100
        temporary.write_bytes(b"x")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_leftovers_of_another_long_name_are_left_alone(tmp_path):
    path, other = (tmp_path / f"{'人' * 80}{last}.bin" for last in "ab")
    subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False)
    remove_leftovers(other)
    assert len(list(tmp_path.iterdir())) == 1
    remove_leftovers(path)
    assert list(tmp_path.iterdir()) == []


def test_a_stem_loses_its_end_where_a_name_would_be_too_long():
    assert fitting("photo", "-2.jpg") == "photo-2.jpg"
    assert fitting("人" * 90, "-2.jpg") == "人" * 83 + "-2.jpg"
