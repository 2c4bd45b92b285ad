from __future__ import annotations

import numpy as np
from training.claims import FAMILIES, STATES, claim_average, claimed_states, hidden_families
from training.pictures import facts_of

from concept_cam.demo import captions as writing
from concept_cam.demo import world
from concept_cam.demo.captions import UNKNOWN
from concept_cam.demo.traits import MASKS


def test_families_are_hidden_where_none_of_their_parts_is_in_the_frame() -> None:
    in_frame = np.zeros((3, len(MASKS)), dtype=bool)
    in_frame[1, MASKS.index("caudal_fin")] = True
    in_frame[2, MASKS.index("trunk")] = True
    hidden = hidden_families(in_frame)
    names = list(FAMILIES)
    assert hidden.shape == (3, len(names))
    assert hidden[0].all()
    seen = {row: {name for name, gone in zip(names, hidden[row], strict=True) if not gone} for row in (1, 2)}
    assert seen[1] == {"caudal_fin_shape", "parts"}
    assert seen[2] == {"body_shape", "pattern", "body_colour", "parts"}


def test_claim_average_takes_single_claims_only() -> None:
    forked = writing.Statement("state", "caudal_fin_shape", "forked")
    other = writing.Statement("state", "barbels", "present")
    texts = [
        writing.Caption("a", (forked,)),
        writing.Caption("b", (forked, other)),
        writing.Caption("c", (forked,)),
    ]
    matrix = claim_average(texts, STATES)
    assert matrix[STATES.index(forked)].tolist() == [0.5, 0.0, 0.5]
    assert float(matrix.sum()) == 1.0


def test_nothing_is_known_of_states_that_no_caption_names() -> None:
    """The map of an absent part would be that of less fish: it must not be trained."""
    specimens = world.sample(6, 3, view="whole")
    facts = facts_of(specimens, world.render(specimens, 64))
    claimed, truth = claimed_states(facts), writing.statement_truth(facts, STATES)
    absent = [n for n, claim in enumerate(STATES) if claim.state == "absent"]
    named = [n for n in range(len(STATES)) if n not in absent]
    assert len(absent) == 4
    assert (truth[:, absent] != UNKNOWN).any()
    assert (claimed[:, absent] == UNKNOWN).all()
    np.testing.assert_array_equal(claimed[:, named], truth[:, named])
