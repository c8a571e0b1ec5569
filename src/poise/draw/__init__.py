"""Poses on pictures, faces made unrecognisable, heatmaps over pictures."""

from __future__ import annotations

from poise.draw.faces import Ellipse, anonymise, head_ellipse
from poise.draw.heatmaps import overlay_heatmaps, overlay_people
from poise.draw.poses import draw_poses
from poise.draw.styles import STYLES, Palette, Style, edge_side, keypoint_sides, person_colour

__all__ = [
    "STYLES",
    "Ellipse",
    "Palette",
    "Style",
    "anonymise",
    "draw_poses",
    "edge_side",
    "head_ellipse",
    "keypoint_sides",
    "overlay_heatmaps",
    "overlay_people",
    "person_colour",
]
