"""The fish world as one of the family."""

from __future__ import annotations

from concept_cam.demo.worlds.family import World
from concept_cam.demo.worlds.fish.facts import PHOTOGRAPH_PHRASES, photograph_truth
from concept_cam.demo.worlds.fish.phrases import EXTRA_PARTS, EXTRA_PHRASES, FISH_PHRASES, SCENE_PHRASES
from concept_cam.demo.worlds.fish.traits import FISH
from concept_cam.demo.worlds.fish.world import render, sample

WORLD = World.of(
    FISH,
    sample=sample,
    render=render,
    part_phrases=EXTRA_PARTS,
    state_phrases=EXTRA_PHRASES,
    host_phrases=FISH_PHRASES,
    scene_phrases=SCENE_PHRASES,
    more_phrases=PHOTOGRAPH_PHRASES,
    more_truth=photograph_truth,
)
