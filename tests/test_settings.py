from pathlib import Path

import pytest

from poise.models.directpose import DirectPoseConfig
from poise.settings import Settings, nearest
from poise.train.recipes import recipe


class Inner(Settings):
    rate: float = 0.1
    names: tuple[str, ...] = ()


class Outer(Settings):
    inner: Inner = Inner()
    steps: int = 3


def test_override_reads_yaml_values() -> None:
    changed = Outer().override(["inner.rate=0.5", "inner.names=[a, b]", "steps=7"])
    assert changed == Outer(inner=Inner(rate=0.5, names=("a", "b")), steps=7)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("steps", "write it as key=value"),
        ("=3", "write it as key=value"),
        ("inner.rat=1", "unknown key 'inner.rat'; did you mean 'rate'"),
        ("steps.deep=1", "'steps' has no keys below it"),
        ("steps=many", "steps = 'many'"),
        ("zzz=1", "known: inner, steps"),
    ],
)
def test_bad_overrides(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Outer().override([assignment])


def test_settings_that_do_not_fit_each_other_are_not_printed_whole() -> None:
    with pytest.raises(ValueError, match=r"^--set: model: view.size = \(64, 48\) .* must be multiples of 32$"):
        recipe("rsn_small").override(["model.view.size=[64,48]"])


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Outer().steps = 5  # type: ignore[misc]


def test_yaml_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    config = DirectPoseConfig(head="naive", heatmap=None)
    path.write_text(config.to_yaml())
    assert DirectPoseConfig.from_yaml(path) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "not valid YAML"),
        ("- 1", "must hold a mapping"),
        ("stepz: 1", "unknown key 'stepz'; did you mean 'steps'"),
        ("!!python/object/apply:os.system [echo]", "not valid YAML"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        Outer.from_yaml(path)


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.yaml"):
        Outer.from_yaml(tmp_path / "no.yaml")


def test_unknown_nested_key_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"unknown key 'inner.rats'; did you mean 'rate'"):
        Outer.parse({"inner": {"rats": 1}})


def test_nearest() -> None:
    assert nearest("appel", ["apple", "pear"]) == "; did you mean 'apple'?"
    assert nearest("zzz", ["pear", "apple"]) == "; known: apple, pear"
