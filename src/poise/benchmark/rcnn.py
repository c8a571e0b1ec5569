"""torchvision's Keypoint R-CNN (ResNet-50, FPN) as a contender, with random weights.

Its time depends on how many people it finds: each is looked at by a head of its own. With random weights it finds none
or as many as it may, so it is told how many to find: the threshold is 0, and the number of detections limited.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from poise.benchmark.clock import Stopwatch
from poise.data.images import read_image
from poise.predict.devices import Running

NAME = "keypointrcnn_resnet50_fpn"
SIZE = (480, 640)
"""(height, width) of pictures and of what the network sees; left alone, it enlarges them to 800x1067."""


class KeypointRCNN:
    """The network of torchvision as its authors' defaults have it, but for the size of the input.

    Args:
        how: where it runs, and in which precision; it is not compiled.
        size: (height, width) of the input.
    """

    def __init__(self, how: Running, size: tuple[int, int] = SIZE) -> None:
        from torchvision.models.detection import keypointrcnn_resnet50_fpn

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = keypointrcnn_resnet50_fpn(
                weights=None, weights_backbone=None, min_size=min(size), max_size=max(size), box_score_thresh=0.0
            )
        self.network = network.eval().requires_grad_(False).to(how.device).to(memory_format=torch.channels_last)
        self.device, self._how = how.device, how

    @torch.inference_mode()
    def find(self, image: torch.Tensor, people: int) -> int:
        """How many people it finds in a picture (3, H, W) of floats; at most ``people``."""
        heads = self.network.roi_heads
        heads.detections_per_img = people
        heads.score_thresh = 2.0 if people == 0 else 0.0
        with self._how.context():
            return len(self.network([image])[0]["boxes"])

    def macs(self, image: torch.Tensor, people: int) -> int:
        """Multiply-adds of convolutions and matrix products, counted as it runs."""
        counter = FlopCounterMode(display=False)
        with counter:
            self.find(image, people)
        return counter.get_total_flops() // 2


class RCNNTask:
    """One picture through Keypoint R-CNN. Its suppression and decoding are parts of the network and not told apart.

    Args:
        network: shared by tasks.
        file: the picture.
        people: how many it finds.
    """

    def __init__(self, network: KeypointRCNN, file: Path, people: int) -> None:
        self._network, self._file, self._people = network, file, people

    def __call__(self, watch: Stopwatch) -> None:
        """One turn."""
        with watch.stage("load"):
            image = read_image(self._file)
        with watch.stage("preprocess"):
            tensor = picture_tensor(image, self._network.device)
        with watch.stage("network"):
            watch.counts["found"] = self._network.find(tensor, self._people)


def picture_tensor(image: object, device: torch.device) -> torch.Tensor:
    """(3, H, W) floats in 0..1 of an RGB array (H, W, 3) of uint8."""
    return torch.as_tensor(image).to(device).permute(2, 0, 1).float().div_(255)
