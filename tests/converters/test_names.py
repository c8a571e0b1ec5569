import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from poise.checkpoints import load_checkpoint
from poise.converters import convert_file, convert_state, read_state_dict
from poise.converters.names import load_strictly, rename
from poise.models import build_model, preset


def test_rename_rules() -> None:
    one = torch.zeros(1)
    state = {"a.conv3.1.weight": one, "fpn_lateral4.bias": one, "x.filt": one, "other": one}
    rules = ((r"conv3\.1\.weight$", "conv3.weight"), (r"fpn_lateral(\d)\.", "lateral.{0-3}."), (r"a\.", "body."))
    assert list(rename(state, rules, drop=(r"\.filt$",))) == ["body.conv3.weight", "lateral.1.bias", "other"]


def test_every_problem_is_listed() -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(ValueError, match=r"not a toy checkpoint: missing: bias; unexpected: odd; wrong shape: weight"):
        load_strictly(model, {"weight": torch.zeros(3, 3), "odd": torch.zeros(1)}, "toy")


def test_batch_counters_may_be_absent() -> None:
    model = nn.BatchNorm2d(2)
    state = {k: v + 3 for k, v in model.state_dict().items() if "num_batches" not in k}
    load_strictly(model, state, "toy")
    assert model.running_mean.tolist() == [3.0, 3.0]
    assert model.num_batches_tracked.item() == 0


def test_unknown_source() -> None:
    with pytest.raises(ValueError, match="did you mean 'directpose'"):
        convert_state({}, "directpos")


def _official_state() -> dict[str, torch.Tensor]:
    """A file of the authors' code: our weights under its names."""
    model = build_model(preset("directpose_r50"))
    back = {
        "head.cls_tower.": "rpn.head.cls_tower.", "head.cls_logits.": "rpn.head.cls_logits.",
        "head.align.tower.": "rpn.head.kps_tower.", "head.centerness.": "rpn.head.centerness.",
        "head.align.locator.": "rpn.head.kps_bases.", "head.align.sampler.": "rpn.head.sample_features_conv.",
        "head.heatmap.tower.": "rpn.heatmaps.deeplab.seg_head.",
        "head.heatmap.output.": "rpn.heatmaps.deeplab.heatmaps.",
        "backbone.body.": "backbone.body.",
    }  # fmt: skip
    state = {}
    for name, value in model.state_dict().items():
        new = next((name.replace(ours, theirs, 1) for ours, theirs in back.items() if name.startswith(ours)), name)
        if name.startswith("head.align.predictors."):
            group, end = name.split(".")[3:]
            new = f"rpn.head.kps_offsets.{group}.kps_offsets.{end}"
        if name.startswith("pyramid."):
            part, level, end = name.split(".")[1:]
            number = int(level) + (6 if part == "extra" else 2)
            kind = {"lateral": "fpn_inner", "output": "fpn_layer", "extra": "top_blocks.p"}[part]
            new = f"backbone.fpn.{kind}{number}.{end}"
        if new.endswith("conv3.weight") and new.split(".")[2] in ("layer2", "layer3", "layer4") and ".0." in new:
            new = new.replace("conv3.weight", "conv3.1.weight")
        state[f"module.{new}"] = value
    return state


def test_official_file_through_the_disk(tmp_path: Path) -> None:
    state = _official_state()
    torch.save({"model": state, "iteration": 5}, tmp_path / "official.pth")
    convert_file(tmp_path / "official.pth", "directpose", tmp_path / "ours.safetensors")
    loaded = load_checkpoint(tmp_path / "ours.safetensors")
    assert loaded.model.config.head_group_level == "p3"
    assert loaded.model.config.anti_alias
    ours = loaded.model.state_dict()
    torch.testing.assert_close(ours["head.cls_logits.weight"], state["module.rpn.head.cls_logits.weight"])
    torch.testing.assert_close(ours["pyramid.extra.1.bias"], state["module.backbone.fpn.top_blocks.p7.bias"])


def test_missing_and_unexpected_names_are_refused(tmp_path: Path) -> None:
    state = _official_state()
    state["module.rpn.head.extra.weight"] = state.pop("module.rpn.head.cls_logits.weight")
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(ValueError, match=r"missing: head\.cls_logits\.weight; unexpected: extra\.weight"):
        convert_file(tmp_path / "bad.pth", "directpose", tmp_path / "ours.safetensors")
    assert not (tmp_path / "ours.safetensors").exists()


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("code in a checkpoint ran",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps(_Trap()), "plain weights"),
        (b"not a checkpoint", "plain weights"),
        (b"", "plain weights"),
    ],
)
def test_unsafe_and_damaged_files(
    tmp_path: Path, content: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_state_dict(path)
    assert capsys.readouterr().out == ""


def test_files_without_tensors(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match="not a state dict"):
        read_state_dict(tmp_path / "list.pth")
    torch.save({"state_dict": {}}, tmp_path / "empty.pth")
    with pytest.raises(ValueError, match="no tensors"):
        read_state_dict(tmp_path / "empty.pth")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_state_dict(tmp_path / "nowhere.pth")
