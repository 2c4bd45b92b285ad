"""What worker processes of one machine do."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import fields, replace

from concept_cam.collection.reading import Loaded
from concept_cam.trust.certified import Certificate
from concept_cam.trust.evidence import Evidence
from concept_cam.trust.rules import Rules
from tests.collection.test_records import EYE, HOST, planned, scored

WORKER = """
import pickle, sys
from concept_cam.collection.engines import local
plan, batch = pickle.load(sys.stdin.buffer)
local._set_plan(plan)
answers = local._measure(batch)
assert answers.table["verdict"].to_pylist().count("clear") == 2, answers.table["verdict"]
slow = [name for name in ("torch", "scipy.stats", "skimage") if name in sys.modules]
assert not slow, slow
"""


def test_a_worker_starts_and_measures_without_torch() -> None:
    """Torch takes seconds to import in every worker, longer than all that a worker does for some hundred pictures."""
    evidence = Evidence(**{item.name: 0.5 for item in fields(Evidence)})
    certificate = Certificate("clear", "planted", 0.9, 0.9, evidence)
    found = replace(scored(), certificates={HOST: certificate, EYE: certificate})
    batch = [(Loaded(found.item, found.sha256), [found])]
    subprocess.run([sys.executable, "-c", WORKER], input=pickle.dumps((planned(rules=Rules()), batch)), check=True)
