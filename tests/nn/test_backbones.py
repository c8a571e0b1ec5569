import pytest
import torch

from poise.nn.backbones import build_backbone, freeze_stages


@pytest.mark.parametrize(
    ("name", "channels"),
    [("resnet50", (512, 1024, 2048)), ("mobilenetv2_100", (32, 96, 320)), ("resnet18", (128, 256, 512))],
)
def test_publishes_what_it_returns(name: str, channels: tuple[int, ...]) -> None:
    backbone = build_backbone(name).eval()
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert backbone.channels == channels
    assert [tuple(f.shape) for f in features] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(channels, (8, 16, 32), strict=True)
    ]
    assert backbone.strides == (8, 16, 32)


def test_other_strides() -> None:
    backbone = build_backbone("mobilenetv2_100", strides=(4, 8))
    assert backbone.channels == (24, 32)


def test_anti_aliased_has_the_parameters_of_the_plain_network() -> None:
    def count(anti_alias: bool) -> int:
        return sum(p.numel() for p in build_backbone("resnet50", anti_alias=anti_alias).parameters())

    assert count(True) == count(False)


def test_anti_aliased_sizes_round_as_in_the_paper() -> None:
    """The stem's pool shrinks by one: floor(ceil(H/2)/2); later blurs give ceil(n/2) (spec 1)."""
    backbone = build_backbone("resnet50", anti_alias=True).eval()
    with torch.no_grad():
        sizes = [tuple(f.shape[-2:]) for f in backbone(torch.zeros(1, 3, 99, 75))]
    stem = (25, 19)
    assert sizes[0] == (-(-stem[0] // 2), -(-stem[1] // 2))
    assert sizes[1] == (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2))


@pytest.mark.parametrize("name", ["no_such_net", "mlp_mixer_nothing"])
def test_unknown_name(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        build_backbone(name)


def test_missing_stride_is_named() -> None:
    with pytest.raises(ValueError, match="not 64"):
        build_backbone("resnet18", strides=(8, 64))


def test_anti_alias_needs_bottlenecks() -> None:
    with pytest.raises(ValueError, match="resnet18"):
        build_backbone("resnet18", anti_alias=True)


def test_freeze_stages() -> None:
    backbone = build_backbone("resnet50")
    freeze_stages(backbone, 2)
    frozen = {n.split(".")[1] for n, p in backbone.named_parameters() if not p.requires_grad}
    assert frozen == {"conv1", "bn1", "layer1"}
    with pytest.raises(ValueError, match="freeze_at=1"):
        freeze_stages(build_backbone("mobilenetv2_100"), 1)


def test_strides_in_the_first_convolutions() -> None:
    """ "Caffe style" has the sizes and parameters of the plain network and other values."""
    plain, caffe = build_backbone("resnet50").eval(), build_backbone("resnet50", stride_in_1x1=True).eval()
    for norm in plain.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(norm.weight)  # timm starts with residual branches that are 0
    caffe.load_state_dict(plain.state_dict())
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        a, b = plain(image), caffe(image)
    assert [x.shape for x in a] == [x.shape for x in b]
    assert not torch.allclose(a[0], b[0])
    for i, layer in enumerate((caffe.body.layer1, caffe.body.layer2, caffe.body.layer3, caffe.body.layer4)):
        first = (1, 1) if i == 0 else (2, 2)
        assert [(block.conv1.stride, block.conv2.stride) for block in layer][:2] == [(first, (1, 1)), ((1, 1), (1, 1))]


def test_strides_in_the_first_convolutions_need_bottlenecks() -> None:
    with pytest.raises(ValueError, match="stride_in_1x1 needs a bottleneck ResNet such as 'resnet50', not 'resnet18'"):
        build_backbone("resnet18", stride_in_1x1=True)
    with pytest.raises(ValueError, match="choose one"):
        build_backbone("resnet50", stride_in_1x1=True, anti_alias=True)


def test_hrnets_return_the_maps_of_their_branches() -> None:
    backbone = build_backbone("hrnet_w18_small", strides=(4, 8, 16, 32)).eval()
    assert backbone.channels == (16, 32, 64, 128)
    with torch.no_grad():
        features = backbone(torch.zeros(1, 3, 64, 96))
    assert [tuple(f.shape[1:]) for f in features] == [(16, 16, 24), (32, 8, 12), (64, 4, 6), (128, 2, 3)]
    assert not [n for n, _ in backbone.named_parameters() if "incre" in n]
