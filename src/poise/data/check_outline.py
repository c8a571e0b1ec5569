"""Looks at a skeleton that a YAML file describes; COCO's categories have their own look in `check_coco`."""

from __future__ import annotations

from poise.data.formats import Outline
from poise.data.outlines import SkeletonOutline, built_in
from poise.data.problems import Findings


def check_outline(outline: Outline, findings: Findings) -> None:
    """Note what a reader would refuse of a skeleton, and what it lacks.

    A complete skeleton has no problems, and one with the keypoints of a built-in skeleton lacks nothing.
    """
    if not isinstance(outline, SkeletonOutline):
        return
    try:
        outline.check()
    except ValueError as error:
        findings.refusal("skeleton", outline.where, error)
    if built_in(outline.keypoints) is not None:
        return
    count = len(outline.keypoints)
    if not outline.flip_pairs and count > 1:
        message = "no pair of keypoints changes sides in a mirror, expected flip_pairs (in YOLO's file flip_idx)"
        findings.warning("flip-pairs-missing", outline.where, "", message)
    if outline.sigmas is None:
        message = f"no sigmas, expected {count} numbers in a skeleton.yaml; they get estimated"
        findings.warning("sigmas-missing", outline.where, "", message)
