"""The documents whose examples run as they stand, and how their code blocks are found."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent

DOCUMENTS = ("README.md", "prompts/README.md", "examples/annotate.md", "examples/index.md", "examples/serve.md", "examples/trust.md")


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(document), flags=re.MULTILINE | re.DOTALL)


def commands(block: str) -> list[str]:
    """The lines of a block that call the package and need no network."""
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for line in block.splitlines()]
    return [line for line in lines if line.startswith("concept-cam") and "hf-hub:" not in line and "ViT-" not in line]
