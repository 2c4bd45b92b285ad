"""Pictures of the fish world with concepts that are true of them: what a learned explainer is trained on."""

from __future__ import annotations

import numpy as np

from concept_cam import prompts
from concept_cam.core.errors import ConfigurationError
from concept_cam.demo.worlds.fish import world
from concept_cam.demo.worlds.fish.traits import CHARACTERS, MASKS
from concept_cam.evaluation.datasets.synthetic import SEED
from concept_cam.methods.lcam_training import TrainingExample

__all__ = ["fish_examples"]


def fish_examples(count: int, seed: int = 1, size: tuple[int, int] = (192, 288)) -> list[TrainingExample]:
    """Makes training examples of the built-in fish world: visible parts and judgeable states, each against its alternatives.

    The seed of the benchmark is never used for them.

    Args:
        count: Pictures.
        seed: Equal seeds give equal pictures.
        size: ``(H, W)`` of the pictures.
    """
    if seed == SEED:
        raise ConfigurationError(f"the seed {SEED} belongs to the benchmark; choose another.")
    known = {concept.name: concept for concept in prompts.load("fish") if concept.contrasts}
    examples = []
    for start in range(0, count, 8):
        batch = world.sample(min(8, count - start), seed, view="whole", start=start)
        rendering = world.render(batch, size, masks=True)
        pictures = rendering.images.permute(0, 2, 3, 1).cpu().numpy()
        for row in range(len(batch)):
            picture = np.ascontiguousarray(pictures[row])
            states = batch.trait(row)
            names = [f"parts={part}" for index, part in enumerate(MASKS) if bool(rendering.visible[row, index])]
            names += [
                f"{character}={states[character]}"
                for index, character in enumerate(CHARACTERS)
                if character in states and bool(rendering.judgeable[row, index]) and states[character] != "absent"
            ]
            examples += [TrainingExample(picture, known[name]) for name in names if name in known]
    return examples
