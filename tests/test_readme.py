"""The README's examples run as they stand."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from PIL import Image

from concept_cam import backbones
from concept_cam.cli import COMMANDS, main

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
ROOT = Path(__file__).parent.parent

needs_model = pytest.mark.skipif(not any(backbones.BUNDLED.glob("*.safetensors")), reason="the bundled model is not in this checkout")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from concept_cam.commands import example

    Image.fromarray(example.render_fish("forked")).save(tmp_path / "fish.png")
    (tmp_path / "photos").mkdir()
    Image.fromarray(example.render_fish("rounded")).save(tmp_path / "photos" / "one.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@needs_model
@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().splitlines()[-1][:40])
def test_python_example(code: str, folder: Path) -> None:
    exec(compile(code, "README.md", "exec"), {})


def scripts() -> list[list[str]]:
    """The commands of each block that run offline, in order: later ones may need what earlier ones wrote."""
    found = []
    for block in blocks("bash"):
        lines = [line.split("  #")[0].strip() for line in block.splitlines()]
        kept = [line for line in lines if line.startswith("concept-cam") and "hf-hub:" not in line and "ViT-" not in line]
        if kept:
            found.append(kept)
    return found


@needs_model
@pytest.mark.parametrize("lines", scripts(), ids=lambda lines: lines[0][:50])
def test_commands_run(lines: list[str], folder: Path) -> None:
    for block in blocks("yaml"):
        name = re.search(r"^pack: (\w+)", block, flags=re.MULTILINE)
        if name:
            (folder / f"{name[1]}.yaml").write_text(block, encoding="utf-8")
    for line in lines:
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"


def test_every_command_is_in_the_readme() -> None:
    assert [name for name in COMMANDS if f"concept-cam {name}" not in README] == []


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_two_commands_are_one_line_each(name: str) -> None:
    found = re.search(rf"<!-- command: {name} -->\n```bash\n(.*?)```", README, flags=re.DOTALL)
    assert found
    assert len(found[1].strip().splitlines()) == 1
    assert subprocess.run(["bash", "-n", "-c", found[1]], check=False).returncode == 0


def test_links_to_files_lead_somewhere() -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", README):
        assert (ROOT / target.split("#")[0]).exists(), target
