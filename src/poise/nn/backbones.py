"""Backbones: any timm model, and the variants that the papers need, made by changing a timm model.

Letters: B images, C channels, H W input size, h w feature size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import Tensor, nn

from poise.nn import mobilenet
from poise.nn.quick_import import load_timm

PYRAMID_STRIDES = (8, 16, 32)
"""Strides of the feature maps C3, C4, C5."""


class Backbone(nn.Module):
    """A feature extractor that publishes what a pyramid needs to know.

    Attributes:
        body: the timm network, or what stands for it (`poise.nn.mobilenet`).
        channels: channels of the outputs, finest first.
        strides: strides of the outputs, finest first.
    """

    def __init__(self, body: nn.Module, channels: Sequence[int], strides: Sequence[int]) -> None:
        super().__init__()
        self.body = body
        self.channels = tuple(channels)
        self.strides = tuple(strides)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps (B, C, h, w), finest first, of images (B, 3, H, W)."""
        return cast(list[Tensor], self.body(images))


def build_backbone(
    name: str,
    *,
    strides: Sequence[int] = PYRAMID_STRIDES,
    anti_alias: bool = False,
    stride_in_1x1: bool = False,
    pretrained: bool = False,
) -> Backbone:
    """A timm network that returns its feature maps of the given strides.

    MobileNetV2 is `poise.nn.mobilenet`, the same network: it needs no timm, unless for weights.

    An HRNet returns the maps of its branches, not those of its classification head (SMPR spec 2).

    Args:
        name: any timm model that supports ``features_only``.
        strides: wanted strides, finest first.
        anti_alias: make the ResNet "lpf3" (DirectPose spec 1); only for timm ResNets with bottlenecks.
        stride_in_1x1: make the ResNet "caffe style" (SMPR spec 2); only for timm ResNets with bottlenecks.
        pretrained: let timm fetch its ImageNet weights (needs the network or timm's cache).

    Raises:
        ValueError: timm does not know the name, or the network has no such strides.
    """
    if anti_alias and stride_in_1x1:
        raise ValueError("anti_alias and stride_in_1x1 both move the strides of a ResNet: choose one")
    if name == mobilenet.NAME and not pretrained:
        maps = mobilenet.feature_maps()
        _require_strides(name, list(maps), strides)
        body: Any = mobilenet.MobileNetV2(strides)
        channels = [maps[stride][1] for stride in sorted(strides)]
    else:
        body, channels = _from_timm(name, strides, pretrained)
    if anti_alias:
        _make_lpf3(body, name)
    if stride_in_1x1:
        _move_strides(body, name)
    return Backbone(body, channels, strides)


def _from_timm(name: str, strides: Sequence[int], pretrained: bool) -> tuple[Any, list[int]]:
    """A network of timm and the channels of its feature maps; arguments and errors as `build_backbone`."""
    load_timm()
    import timm

    options = {"feature_location": ""} if name.startswith("hrnet") else {}
    try:
        probe = timm.create_model(name, features_only=True, **options)
    except (RuntimeError, AttributeError) as error:
        raise ValueError(f"backbone {name!r} is not a timm model with feature maps: {error}") from None
    reductions = list(probe.feature_info.reduction())
    _require_strides(name, reductions, strides)
    indices = tuple(len(reductions) - 1 - reductions[::-1].index(s) for s in strides)
    body = timm.create_model(name, features_only=True, out_indices=indices, pretrained=pretrained, **options)
    return body, body.feature_info.channels()


def _require_strides(name: str, there: Sequence[int], wanted: Sequence[int]) -> None:
    missing = [s for s in wanted if s not in there]
    if missing:
        raise ValueError(f"backbone {name!r} has feature maps of strides {list(there)}, not {missing[0]}")


def _make_lpf3(body: Any, name: str) -> None:
    """Turn a timm bottleneck ResNet into the anti-aliased "lpf3, pool only" variant (DirectPose spec 1).

    Max-pool 2x2 stride 1 then blur; in the first block of layers 2-4 the 3x3 convolution loses its stride, a blur
    precedes conv3, and a blur precedes the projection shortcut, which loses its stride too.
    """
    from timm.layers import BlurPool2d

    _require_bottlenecks(body, name, "anti_alias")
    stem_channels = body.conv1.out_channels
    body.maxpool = nn.Sequential(nn.MaxPool2d(2, stride=1), BlurPool2d(stem_channels))
    for layer in (body.layer2, body.layer3, body.layer4):
        block = layer[0]
        block.conv2.stride = (1, 1)
        block.aa = BlurPool2d(block.conv2.out_channels)
        convolution, norm = block.downsample[0], block.downsample[1]
        convolution.stride = (1, 1)
        block.downsample = nn.Sequential(BlurPool2d(convolution.in_channels), convolution, norm)


def _move_strides(body: nn.Module, name: str) -> None:
    """Move the stride of layers 2-4 from the 3x3 to the first 1x1 convolution of their first block (SMPR spec 2)."""
    _require_bottlenecks(body, name, "stride_in_1x1")
    for i in (2, 3, 4):
        block = body.get_submodule(f"layer{i}.0")
        first, second = cast(nn.Conv2d, block.conv1), cast(nn.Conv2d, block.conv2)
        first.stride, second.stride = second.stride, first.stride


def _require_bottlenecks(body: nn.Module, name: str, option: str) -> None:
    parts = dict(body.named_modules())
    if not all(f"layer{i}.0.conv3" in parts for i in (1, 2, 3, 4)):
        raise ValueError(f"{option} needs a bottleneck ResNet such as 'resnet50', not {name!r}")


def freeze_stages(backbone: Backbone, count: int) -> None:
    """Freeze the parameters of the stem (``count`` >= 1) and of layers 1..count-1 of a ResNet (GluonCV FREEZE_AT)."""
    if count <= 0:
        return
    names = ["conv1", "bn1"] + [f"layer{i}" for i in range(1, count)]
    for name in names:
        part = getattr(backbone.body, name, None)
        if part is None:
            raise ValueError(f"freeze_at={count} needs a ResNet backbone with a part {name!r}")
        for parameter in part.parameters():
            parameter.requires_grad_(False)
