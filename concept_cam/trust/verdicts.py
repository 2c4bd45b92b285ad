"""The names of verdicts, and what they say; plain data that the command line offers without loading anything."""

from __future__ import annotations

__all__ = ["ABSENT", "CLEAR", "DOUBTFUL", "OFF_PROMPT", "TRUST_VERDICTS", "UNFOUND"]

CLEAR, DOUBTFUL, OFF_PROMPT, ABSENT = "clear", "doubtful", "not about the prompt", "absent"

TRUST_VERDICTS: dict[str, str] = {
    CLEAR: "the map obeys its prompt, and its peak may be taken for the target's place",
    DOUBTFUL: "something speaks against it; look before you use it",
    OFF_PROMPT: "the map would look much the same for other words",
    ABSENT: "the target is most likely not in the picture",
}
"""What a verdict says."""

UNFOUND = (OFF_PROMPT, ABSENT)
"""Verdicts under which a map shows nothing of the target: where it would be is not shown as if it had been found."""
