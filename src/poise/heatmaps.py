"""What a heatmap network saw of the people in a picture, to be looked at.

Letters: N people, K keypoints, h w heatmap. Frames: heatmap px, image px.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Heatmaps:
    """A heatmap for every keypoint of N people, and where they lie in the picture.

    Attributes:
        maps: (N, K, h, w) float32; where a label would peak, a sure network has 1.
        to_image: (N, 2, 3) float64 affine maps, heatmap px -> image px.
    """

    maps: npt.NDArray[np.float32]
    to_image: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        """Cast and check; ``ValueError`` names the field."""
        object.__setattr__(self, "maps", np.asarray(self.maps, np.float32))
        object.__setattr__(self, "to_image", np.asarray(self.to_image, np.float64))
        if self.maps.ndim != 4:
            raise ValueError(f"Heatmaps.maps must have shape (N, K, h, w), not {self.maps.shape}")
        if self.to_image.shape != (len(self.maps), 2, 3):
            raise ValueError(f"Heatmaps.to_image must have shape {(len(self.maps), 2, 3)}, not {self.to_image.shape}")

    def __len__(self) -> int:
        """Number of people N."""
        return len(self.maps)

    def __getitem__(self, index: Any) -> Heatmaps:
        """Those of some people, by slice, list, index array or boolean mask."""
        return Heatmaps(self.maps[index], self.to_image[index])

    @staticmethod
    def joined(parts: Sequence[Heatmaps | None]) -> Heatmaps | None:
        """Those of all parts, or None if a part has none or another size."""
        present = [part for part in parts if part is not None]
        if len(present) < len(parts) or len({part.maps.shape[1:] for part in present}) != 1:
            return None
        return Heatmaps(np.concatenate([p.maps for p in present]), np.concatenate([p.to_image for p in present]))
