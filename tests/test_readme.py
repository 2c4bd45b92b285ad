"""The examples in the documents run as they stand."""

from __future__ import annotations

import inspect
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any, get_overloads

import pytest
from click.testing import CliRunner
from PIL import Image
from skimage import data

from concept_cam import backbones
from concept_cam.cli import COMMANDS, main
from concept_cam.commands import example
from concept_cam.core.concept import Concept
from concept_cam.demo.worlds import WORLDS
from concept_cam.localizer import Localizer
from concept_cam.trust.conformal import Conformal
from concept_cam.trust.kept import Trust
from tests.documents import DOCUMENTS, ROOT, blocks, commands, text_of

needs_model = pytest.mark.skipif(not any(backbones.BUNDLED.glob("*.safetensors")), reason="the bundled model is not in this checkout")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    Image.fromarray(example.render_fish("forked")).save(tmp_path / "fish.png")
    (tmp_path / "photos").mkdir()
    Image.fromarray(example.render_fish("rounded")).save(tmp_path / "photos" / "one.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(lines: list[str]) -> None:
    for line in lines:
        result = CliRunner().invoke(main, shlex.split(line)[1:])
        assert result.exit_code == 0, f"{line}\n{result.output}"


def code() -> list[Any]:
    found = [(document, number, block) for document in DOCUMENTS for number, block in enumerate(blocks(document, "python"))]
    return [pytest.param(document, block, id=f"{document} {number}") for document, number, block in found]


@needs_model
@pytest.mark.parametrize(("document", "block"), code())
def test_python_example(document: str, block: str, folder: Path) -> None:
    if "read_run(" in block:
        run(["concept-cam annotate photos/ --traits fish:parts -o run/ --workers 0"])
    if "Index.open(" in block:
        run(["concept-cam index photos/ -o fish.index --workers 0"])
    if "Trust.read(" in block:
        facts = {"weights_hash": backbones.load().weights_hash}
        limits = Conformal(0.1, {"fish:parts=head": 0.6}, {"fish:parts=head": 0.05}, facts=facts)
        Trust(None, (limits,)).save("trust.json")
    exec(compile(block, document, "exec"), {})


@needs_model
@pytest.mark.parametrize("document", [document for document in DOCUMENTS if blocks(document, "bash")])
def test_commands_run_in_their_order(document: str, folder: Path) -> None:
    for block in blocks(document, "yaml"):
        name = re.search(r"^pack: (\w+)", block, flags=re.MULTILINE)
        if name:
            (folder / f"{name[1]}.yaml").write_text(block, encoding="utf-8")
    lines = [line for block in blocks(document, "bash") for line in commands(block)]
    assert lines
    run(lines)


@pytest.mark.slow
def test_python_examples_are_rightly_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package says that it is typed (`py.typed`), so what the documents show passes a strict checker in a user's project."""
    api = pytest.importorskip("mypy.api")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MYPYPATH", str(ROOT))
    for number, (document, block) in enumerate(item.values for item in code()):
        Path(f"example_{number}.py").write_text(f"# {document}\n{block}", encoding="utf-8")
    # A place may be None where none was asked for; the example asked for one.
    options = ["--strict", "--config-file=", "--follow-imports=silent", "--disable-error-code=union-attr"]
    said, problems, status = api.run([*options, *map(str, sorted(Path().glob("example_*.py")))])
    assert (status, problems) == (0, ""), said


def test_a_path_in_words_is_one_picture_to_a_type_checker() -> None:
    for call in (Localizer.encode, Localizer.locate):
        assert get_overloads(call)[0].__annotations__["images"] == "str", call


def test_what_a_concept_is_made_of_is_declared_for_type_checkers() -> None:
    text = inspect.getsource(Concept)
    declared = re.findall(r"^            (\w+): ", text.partition("def __init__(")[2].partition(") -> None")[0], flags=re.MULTILINE)
    assert declared == list(inspect.signature(Concept).parameters)


def test_every_command_is_in_the_documents() -> None:
    texts = "".join(text_of(document) for document in DOCUMENTS)
    assert [name for name in COMMANDS if f"concept-cam {name}" not in texts] == []


@pytest.mark.parametrize("name", ["demo", "test"])
def test_the_two_commands_are_one_line_each(name: str) -> None:
    found = re.search(rf"<!-- command: {name} -->\n```bash\n(.*?)```", text_of("README.md"), flags=re.DOTALL)
    assert found
    assert len(found[1].strip().splitlines()) == 1
    assert subprocess.run(["bash", "-n", "-c", found[1]], check=False).returncode == 0


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_to_files_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)]+)\)", text_of(document)):
        assert ((ROOT / document).parent / target.split("#")[0]).exists(), target


GUIDES = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "README.md", *ROOT.glob("prompts/*.md"), *ROOT.glob("examples/**/*.md")))


@pytest.mark.parametrize("document", GUIDES)
def test_installing_needs_what_a_reader_has(document: str) -> None:
    """No index has the package, so the guides install from the clone that a reader has; the source archive holds the files they name."""
    text = text_of(document)
    assert re.findall(r"pip install[^`\n&]*[ \"']concept-cam\b", text) == []
    project = tomllib.loads(text_of("pyproject.toml"))
    for constraints in re.findall(r"pip install[^`\n&]* -c (\S+)", text):
        assert (ROOT / constraints).is_file()
        assert constraints in project["tool"]["hatch"]["build"]["targets"]["sdist"]["include"]
    for extra in re.findall(r"extra `\[(\w+)\]`", text):
        assert extra in project["project"]["optional-dependencies"], extra


@needs_model
@pytest.mark.slow
@pytest.mark.parametrize("document", [document for document in DOCUMENTS if blocks(document, "console")])
def test_console_blocks_run_in_their_order(document: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the documents show at a prompt; a person's part (the labels) and the cluster's (its tasks) are played."""
    fishes = WORLDS["fish"].render(WORLDS["fish"].sample(8, seed=5, view="whole"), (256, 384)).images  # A fit needs right and wrong maps.
    for number, pixels in enumerate(fishes):
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / "photos" / f"fish{number}.png")
    run(["concept-cam annotate photos/ --traits fish --output run/ --workers 0"])
    run(["concept-cam export run/ --to cvat --output annotations.xml"])
    labels = (folder / "annotations.xml").read_text(encoding="utf-8")
    looked_at = re.sub(r'(name="reviewed">)false', r"\1true", labels)
    assert looked_at != labels
    (folder / "annotations.xml").write_text(looked_at, encoding="utf-8")
    shutil.copytree(folder / "photos", folder / "new")
    (folder / "other_photos").mkdir()
    for number, picture in enumerate((data.coffee(), data.chelsea())):
        Image.fromarray(picture).save(folder / "other_photos" / f"{number}.png")
    lines = [line.removeprefix("$ ").split("  #")[0].strip() for block in blocks(document, "console") for line in block.splitlines()]
    ran = 0
    for line in lines:
        task = re.fullmatch(r"sbatch --array=1-(\d+) --wrap '(.*)'", line)
        if task:
            shutil.rmtree("run")
            monkeypatch.setenv("SLURM_ARRAY_TASK_MIN", "1")
            monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "1")
            monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
            run([task[2]])
        elif line.startswith("concept-cam"):
            if line.startswith("concept-cam annotate new/"):  # In place of the run that the labels came from.
                shutil.rmtree("run")
            run([line])
        else:
            assert "-m pip install" in line, line
            continue
        ran += 1
    assert ran
