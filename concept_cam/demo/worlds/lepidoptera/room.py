"""The world of butterflies and moths as one of the family."""

from __future__ import annotations

from concept_cam.demo.worlds.family import World
from concept_cam.demo.worlds.lepidoptera.phrases import HOST_PHRASES, PART_PHRASES, SCENE_PHRASES, STATE_PHRASES
from concept_cam.demo.worlds.lepidoptera.traits import LEPIDOPTERA
from concept_cam.demo.worlds.lepidoptera.world import render, sample

WORLD = World.of(
    LEPIDOPTERA,
    sample=sample,
    render=render,
    part_phrases=PART_PHRASES,
    state_phrases=STATE_PHRASES,
    host_phrases=HOST_PHRASES,
    scene_phrases=SCENE_PHRASES,
)
