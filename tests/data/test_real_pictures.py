import os
from pathlib import Path

import numpy as np
import pytest

from poise.data.coco import read_coco, read_folder
from poise.data.compose import compose
from poise.data.config import AugmentConfig, CropConfig
from poise.data.crop_people import PersonCrops
from poise.data.images import read_image
from poise.data.material import Material, Source
from poise.data.records import PoseDataset
from poise.data.samples import points_inside
from poise.skeletons import COCO17, CROWDPOSE14
from poise.types import ViewSpec

DATA = Path(os.environ.get("POISE_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not (DATA / "coco").is_dir(), reason=f"no pictures in {DATA}; set POISE_DATA"),
]


@pytest.fixture(scope="module")
def coco() -> PoseDataset:
    return read_coco(DATA / "coco/annotations/train.json", DATA / "coco/train")


def test_counts(coco: PoseDataset) -> None:
    assert (len(coco), coco.person_count) == (290, 754)
    assert coco.skeleton is COCO17
    sport = read_coco(DATA / "lspet/annotations/val.json", DATA / "lspet/images")
    assert (len(sport), sport.person_count) == (493, 493)
    assert all((record.keypoints[:, 0, 2] == 0).all() for record in sport)
    assert sum(len(record.ignore) for record in sport) == 449


def test_skeletons_are_known_by_their_keypoints() -> None:
    crowdpose = read_coco(DATA / "formats/crowdpose/test_crowdpose.json", DATA / "formats/crowdpose").skeleton
    assert crowdpose.sigmas == CROWDPOSE14.sigmas
    assert read_coco(DATA / "lspet/annotations/val_lsp14.json", DATA / "lspet/images").skeleton.name == "lsp14"


def test_pictures_have_the_annotated_size(coco: PoseDataset) -> None:
    for record in coco.records[:30]:
        assert read_image(record.path).shape == (*record.size, 3)


def test_canvases(coco: PoseDataset) -> None:
    negatives = read_folder(DATA / "negatives", COCO17).records[:20]
    material = Material([Source(coco)], negatives)
    people = 0
    for seed in range(12):
        sample = compose(material, AugmentConfig(), (160, 160), np.random.default_rng(seed))
        assert sample.image.shape == (160, 160, 3)
        seen = sample.truth.keypoints[sample.truth.keypoints[..., 2] > 0]
        assert ((seen[:, :2] > -0.5) & (seen[:, :2] < 159.5)).all()
        people += len(sample.truth)
    assert people > 12


def test_crops_show_the_people_they_are_for(coco: PoseDataset) -> None:
    spec = ViewSpec(kind="crop", size=(192, 160), extension=(1.2, 1.2), half_pixel=False)
    config = CropConfig(half_body_p=0.0, recolour_p=0.5, erase_p=0.5)
    drawer = PersonCrops([Source(coco)], config, AugmentConfig(), spec, seed=0)
    assert len(drawer) == 754
    inside, black = [], []
    for position in range(0, 754, 25):
        sample = drawer.sample(drawer.person(0, position, 754), np.random.default_rng(position))
        assert sample.image.shape == (192, 160, 3)
        points = sample.truth.keypoints[0]
        labelled = points[points[:, 2] > 0]
        inside += points_inside(labelled, (192, 160)).tolist()
        black.append((sample.image.max(2) < 40).mean())
    assert np.mean(inside) > 0.9
    assert np.mean(black) < 0.5
