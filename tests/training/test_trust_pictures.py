"""Pictures that the rules of trust are fitted to: what is asked of them, and what is there."""

from __future__ import annotations

from itertools import islice

import numpy as np
from training.trust_pictures import pictures_of

from concept_cam.trust.rules import key_of, kind_of


def test_the_whole_organism_is_asked_for_by_its_name() -> None:
    seen = 0
    data = pictures_of(8, 5, ["fish", "beetle"], 0)
    for sample in islice(data, 8):
        asked = {key_of(question.concept): question for question in sample.questions}
        host = asked["fish:host"]
        assert kind_of(host.concept) == "thing"
        assert host.concept.target == ("a fish",)
        parts = [question for name, question in asked.items() if name.startswith("fish:parts=") and question.mask is not None]
        assert host.present == bool(parts), sample.name
        assert not asked["beetle:host"].present
        if host.present:
            seen += 1
            mask = np.asarray(host.mask())
            for part in parts:
                assert not ((np.asarray(part.mask()) > 0) & (mask == 0)).any(), "a part lies within the whole"
    assert seen >= 4
