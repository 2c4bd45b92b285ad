"""Writes the model that ships: trained neck, standing backbone, text tower, nouns and joint head in one folder.

PYTHONPATH=examples python -m training.export --run runs/demo --output runs/demo/model --text runs/text --nouns runs/text
PYTHONPATH=examples python -m training.export --run runs/demo --output runs/demo/model       # text tower and nouns of the bundled model
PYTHONPATH=examples python -m training.export --run runs/more --output runs/more/model --share 0.5    # half of the bundled model
PYTHONPATH=examples python -m training.export --run runs/one --run runs/two --output runs/both    # the mean of both
PYTHONPATH=examples python -m training.export --output runs/demo/model --nouns runs/text     # the bundled model with other nouns
PYTHONPATH=examples python -m training.export --output runs/demo/model --gate     # the bundled model, its gate fitted on
PYTHONPATH=examples python -m training.export --run runs/own --output runs/own/model --specialist plant     # a neck for leaves
PYTHONPATH=examples python -m training.export --run runs/own --output runs/own/model --specialist fish --takes map --share 0.5  # half
PYTHONPATH=examples python -m training.export --run runs/own --output runs/own/model --specialist plant --takes reading    # no other map
PYTHONPATH=examples python -m training.export --run runs/told --output runs/told/model --specialist fish    # of a run that learned states

Needs the package `timm` for the names of things.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor

from concept_cam import prompts
from concept_cam.backbones import BUNDLED, lite
from concept_cam.backbones.familiarity import words_of
from concept_cam.backbones.lite_towers import Reads, Sizes, Value
from concept_cam.backbones.noun_head import NounConfig, NounHead
from concept_cam.backbones.word_pieces import WordPieceConfig, WordPieceTokens, unpacked
from concept_cam.commands.console import above_zero, existing, run_script
from concept_cam.core.errors import ConfigurationError
from concept_cam.demo.worlds import WORLDS
from training.backbone import load_trunk
from training.config import TRAIN_SEED, most_drawn
from training.dictionary import nouns as dictionary_nouns
from training.families import families
from training.joint import fit, fit_gate
from training.networks import PartWords, Trainee, folded, of_queries
from training.sentences import saved_sentences
from training.sentences import wordings as every_wording
from training.tensors import read_tensors


@dataclass(frozen=True)
class Standing:
    """What a run of the neck leaves as it is.

    Attributes:
        trunk: Parameters of the backbone.
        naming: Sizes of the head for nouns.
        nouns: Its parameters.
        speaking: Sizes of the text tower.
        text: Its parameters.
        tokenizer: `tokenizer.json`.
    """

    trunk: Mapping[str, Tensor]
    naming: NounConfig
    nouns: Mapping[str, Tensor]
    speaking: WordPieceConfig
    text: Mapping[str, Tensor]
    tokenizer: str


def made(text: Path, nouns: Path, backbone: Path | None = None) -> Standing:
    """The published backbone, and what `training.distil` and `training.noun_rows` wrote.

    Args:
        text: Folder with `text.json`, `text.safetensors`, `tokenizer.json`.
        nouns: Folder with `nouns.json`, `nouns.safetensors`.
        backbone: The published backbone; ``None`` for that of the installed package.
    """
    from safetensors.torch import load_file

    return Standing(
        load_trunk(backbone),
        *read_nouns(nouns),
        WordPieceConfig(**json.loads((text / "text.json").read_text(encoding="utf-8"))),
        unpacked(load_file(text / "text.safetensors")),
        (text / "tokenizer.json").read_text(encoding="utf-8"),
    )


def read_nouns(folder: Path) -> tuple[NounConfig, dict[str, Tensor]]:
    """Sizes and parameters, float32, of the head for nouns that `training.noun_rows` wrote."""
    from safetensors.torch import load_file

    config = NounConfig(**json.loads((folder / "nouns.json").read_text(encoding="utf-8")))
    return config, {name: value.float() for name, value in load_file(folder / "nouns.safetensors").items()}


def bundled_model() -> lite.LiteModel:
    """The model that is bundled."""
    model = lite.make(BUNDLED, "demo").model
    assert isinstance(model, lite.LiteModel)
    return model


def bundled() -> Standing:
    """The same out of the model that is bundled."""
    model = bundled_model()
    image = model.image
    return Standing(
        image.trunk.state_dict(),
        image.nouns.config,
        image.nouns.state_dict(),
        model.text.config,
        model.text.state_dict(),
        (BUNDLED / lite.TOKENIZER).read_text(encoding="utf-8"),
    )


def renamed(nouns: Path, output: Path, pictures: int = 112) -> None:
    """Writes the bundled model with another head for nouns, and with the pictures that it remembers in the space of that.

    The text tower, the necks and the joint head stay to the bit; what specimens are called is told by the other nouns as well.

    Args:
        nouns: Folder with `nouns.json`, `nouns.safetensors`, fitted to the bundled text tower.
        output: Where to.
        pictures: As of :func:`remember`.

    Raises:
        SystemExit: The head is for another classifier, or of another width.
    """
    model = bundled_model()
    config, parameters = read_nouns(nouns)
    head = NounHead(config)
    head.load_state_dict(parameters)
    if head.config.width != model.sizes.nouns or not torch.equal(head.classifier.weight, model.image.nouns.classifier.weight):
        raise SystemExit(
            f"the nouns of {nouns} are of another classifier or width than the bundled model: fit them with training.noun_rows."
        )
    model.image.nouns = head.eval()
    tokenizer = (BUNDLED / lite.TOKENIZER).read_text(encoding="utf-8")
    model.image.hosts = host_vectors(model, tokenizer, model.image.groups)
    known = json.loads((BUNDLED / lite.KNOWN).read_text(encoding="utf-8"))
    known["groups"] = remember_pictures(model, tokenizer, list(dict.fromkeys(known["groups"])), pictures)
    lite.save(model, tokenizer, output, known)


def regated(output: Path) -> None:
    """Writes the bundled model with a gate that was fitted on: which texts speak of parts, and which name things.

    All else stays to the bit, but what specimens are called.

    Args:
        output: Where to.
    """
    model = bundled_model()
    tokenizer = (BUNDLED / lite.TOKENIZER).read_text(encoding="utf-8")
    known = json.loads((BUNDLED / lite.KNOWN).read_text(encoding="utf-8"))
    worlds = list(dict.fromkeys(known["groups"]))
    texts = list(dict.fromkeys(text for each in every_wording(worlds).values() for text in each))
    fit_gate(model.joint, embedder(model, tokenizer), texts, things(), worlds)
    model.image.hosts = host_vectors(model, tokenizer, model.image.groups)
    lite.save(model, tokenizer, output, known)


MAP: Final = ("image.neck.", "image.parts.")
"""Beginnings of the names of what makes the map."""
READING: Final = ("image.query.", "image.value.")
"""Beginnings of the names of what makes the image embedding."""
NEAR: Final = 0.01
"""Of the largest weight: what folding norms and writing eight bits leave between weights that are the same."""
_FINISHED: Final = "weights of a finished run"
TAKEN: Final[Mapping[str, tuple[str, ...]]] = {"all": (*MAP, *READING), "map": MAP, "reading": READING}
"""What a specialist takes of a run: all that it learned of one group, what makes the map, or how it reads states."""


def specialised(run: Path, group: str, output: Path, takes: str = "all", share: float = 1.0, heard: float | None = None) -> bool:
    """Writes the bundled model with the neck of a run as that of one group; a specialist that it had for it goes.

    A run that learned one group says its states as well, unless the map alone is taken; one that learned the map does not. Where
    its reading alone is taken, the neck that the group had stays; the last block of a run that learned states is put beside that of the
    map, which stays. All else stays to the bit.

    Args:
        run: Folder of a run that began with the bundled model and learned the map alone, one group, its states, or how they are read.
        group: The group.
        output: Where to.
        takes: A key of :data:`TAKEN`. A run that learned how states are told alone has nothing else to give.
        share: Of what is taken; the rest is what the group's pictures were read by before, see :func:`mixed`.
        heard: How much is heard of what the specialist says of states; ``None``: as much as before, or half.

    Returns:
        Whether the group lost a reading of its own, which was fitted to the neck of the map before.

    Raises:
        ConfigurationError: The model does not know the group, the run changed words or widths, or it drew more pictures of another group.
    """
    model = bundled_model()
    known = json.loads((BUNDLED / lite.KNOWN).read_text(encoding="utf-8"))
    groups = tuple(dict.fromkeys(known["groups"]))
    if group not in groups:
        raise ConfigurationError(f"the bundled model knows no group {group!r}: expected one of {', '.join(groups)}.")
    saved = read_tensors(run / "trained.pt", _FINISHED)
    trainee, state = _trainee(saved), model.state_dict()
    own, queries = learned(trainee), model.sizes.queries // len(groups)
    how = f"Train it with --start-from bundled and --learn map, or --learn group, states or reading and most pictures of {group}."
    # A run for one group has queries of its own, and says states by what they read.
    one = trainee.sizes.queries == queries != model.sizes.queries
    if strange := _other_widths({name: value for name, value in own.items() if not one or not name.startswith(READING)}, state):
        raise ConfigurationError(f"{strange}: a specialist has those. {how}")
    if takes == "reading" and not one:
        raise ConfigurationError(
            "the run learned the map alone, received --takes reading: it tells no states. Take its map, or a run with --learn group, "
            "states or reading."
        )
    # Runs that were written before do not say what they learned.
    how_learned = saved.get("learn")
    if takes == "map" and how_learned in ("states", "reading"):
        raise ConfigurationError(
            "the run learned how states are told alone, received --takes map: its map is the bundled model's. Leave out --takes, or "
            "take the map of a run with --learn map or group."
        )
    if takes == "reading" and how_learned == "states":
        raise ConfigurationError(
            "the run learned to tell states by a last block of its own, received --takes reading: no other block makes what it reads. "
            "Leave out --takes."
        )
    reads = one and takes != "map"
    there = replace(model.sizes, queries=queries, reading=trainee.sizes.reading if model.sizes.reading else 0)
    if reads and (strange := _other_widths(trainee.value.state_dict(), Value(there).state_dict())):
        raise ConfigurationError(f"{strange}: a specialist that reads has those. {how}")
    alike = {name: value for name, value in own.items() if name.startswith(("joint.", "logit_scale"))}
    if changed := [name for name, value in alike.items() if not torch.allclose(value, state[name], atol=1e-3)]:
        raise ConfigurationError(
            f"the run has other words than the bundled model ({changed[0]}): a specialist says what the model's words ask for. {how}"
        )
    drawn: dict[str, int] = json.loads((run / "config.json").read_text(encoding="utf-8"))["worlds"]
    if drawn.get(group, 0) < max(drawn.values()) or (one and group != most_drawn(drawn)):
        counts = ", ".join(f"{count} of {name}" for name, count in drawn.items())
        raise ConfigurationError(
            f"a step of the run drew {counts}, received --specialist {group}: the neck of a group has seen more of it than of any other. "
            f"Name {most_drawn(drawn)}, or a run of {group}."
        )
    specialists = tuple(dict.fromkeys([*model.image.specialists, group]))
    readers = {name: each for name, each in model.image.readers.items() if name != group}
    tokenizer = (BUNDLED / lite.TOKENIZER).read_text(encoding="utf-8")
    before, had = {**_shared(model, group), **state}, model.image.readers.get(group)
    rooms, sight = TAKEN[takes] if reads else MAP, f"image.specialists.{group}.sight."
    last, had_sight = f"image.neck.fine.{trainee.sizes.depth - 1}.", had is not None and had.sighted
    if how_learned in ("states", "reading"):
        rooms = READING
        looks = None if how_learned == "states" else sight if had_sight else _placed(last, group)
        if other := _other_neck(own, before, group, last, looks):
            raise ConfigurationError(f"{other}: what the run reads is fitted to its own. {how}")
    elif had_sight and (takes == "reading" or (reads and share < 1.0)):
        raise ConfigurationError(
            f"{group} is read through a last block of its own, and the run has another: what one reads is nothing to the other. Leave out "
            "--takes and --share, or take the map, or a run with --learn states or reading."
        )
    taken = {_placed(name, group): value for name, value in own.items() if name.startswith(rooms)}
    map_of = {_placed(name, group): before[_placed(name, group)] for name in own if name.startswith(MAP)}
    sighted = how_learned == "states" or (how_learned == "reading" and had_sight)
    if how_learned == "states":
        # It is put beside the last block of the map's neck; a group that had one block begins with that for both.
        taken |= {name.replace(last, sight): value for name, value in own.items() if name.startswith(last)}
        before = {**{name.replace(_placed(last, group), sight): value for name, value in map_of.items()}, **before}
    if share < 1.0:
        taken = mixed(taken, {name: before[name] for name in taken}, share)
    taken = {**map_of, **taken}
    taken[lite.HOSTS] = host_vectors(model, tokenizer, groups)
    if reads:
        taken[f"image.specialists.{group}.held"] = held = presence_vectors(model, tokenizer, group)
        readers[group] = Reads(trainee.sizes.reading, len(held), sighted, heard or (had.heard if had else Reads.heard))
    if heard and group not in readers:
        raise ConfigurationError(
            f"received --heard {heard:g}, and {group} has no reading of its own in this model: its map is taken alone. Leave out --heard."
        )
    lite.save(rebuilt(model, taken, groups=groups, specialists=specialists, readers=readers), tokenizer, output, known)
    return group in model.image.readers and group not in readers


def _other_neck(own: Mapping[str, Tensor], before: Mapping[str, Tensor], group: str, last: str, looks: str | None) -> str:
    """Says that a run has another neck than a group's pictures are read by; nothing where it has that.

    Args:
        own: What the run learned.
        before: The model's weights.
        group: The group.
        last: Beginning of the names of the last block of the run's neck.
        looks: Beginning of the names of the block that it should be; ``None`` for a block that the run learned.
    """
    for name, value in own.items():
        if name.startswith("image.neck.") and (looks is not None or not name.startswith(last)):
            there = before[name.replace(last, looks) if looks is not None and name.startswith(last) else _placed(name, group)]
            if (value - there).abs().max() > NEAR * there.abs().max():
                return f"the run has another neck than the bundled model's for {group} ({name})"
    return ""


def _placed(name: str, group: str) -> str:
    """The name that a weight of a run has in a specialist."""
    return name.replace("image.", f"image.specialists.{group}.", 1)


def _shared(model: lite.LiteModel, group: str) -> dict[str, Tensor]:
    """What reads pictures of a group that has no specialist, by the names that a specialist's weights have."""
    image, queries = model.image, model.sizes.queries // len(model.image.groups)
    first = model.image.groups.index(group) * queries
    own = slice(first, first + queries)
    rooms = {
        "neck": image.neck.state_dict(),
        "parts": image.parts.state_dict(),
        "query": {name: value[own] for name, value in image.query.state_dict().items()},
        "value": of_queries(image.value.state_dict(), model.sizes.queries, own),
    }
    return {f"image.specialists.{group}.{room}.{name}": value for room, values in rooms.items() for name, value in values.items()}


def rebuilt(
    model: lite.LiteModel,
    given: Mapping[str, Tensor],
    *,
    sizes: Sizes | None = None,
    groups: Sequence[str] | None = None,
    specialists: Sequence[str] | None = None,
    readers: Mapping[str, Reads] | None = None,
) -> lite.LiteModel:
    """The same model with some other weights, and with other widths, groups or specialists where these are given.

    Args:
        model: The model; it stays as it is.
        given: The other weights, by name: all whose shape differs, and all that are new.
        sizes: Widths; ``None``: the model's.
        groups: As of `LiteModel`; ``None``: the model's.
        specialists: Likewise.
        readers: Likewise.
    """
    found = lite.LiteModel(
        model.sizes if sizes is None else sizes,
        model.image.nouns.config,
        model.text.config,
        len(model.familiar),
        len(model.examples),
        groups=model.image.groups if groups is None else groups,
        specialists=tuple(model.image.specialists) if specialists is None else specialists,
        readers=model.image.readers if readers is None else readers,
    )
    names = found.state_dict()
    found.load_state_dict({**{name: value for name, value in model.state_dict().items() if name in names}, **given})
    found.sharpness = dict(model.sharpness)
    return found.eval()


@torch.no_grad()
def host_vectors(model: lite.LiteModel, tokenizer: str, groups: Sequence[str]) -> Tensor:
    """What specimens of some groups are called, one unit vector each: [G, D]."""
    if not groups:
        return torch.zeros(0, model.sizes.embed_dim)
    embed = embedder(model, tokenizer)
    named = (embed(WORLDS[group].host_phrases) for group in groups)
    return torch.stack([F.normalize(model.joint(texts, model.image.nouns.text(texts)).mean(0), dim=0) for texts in named])


@torch.no_grad()
def presence_vectors(model: lite.LiteModel, tokenizer: str, group: str) -> Tensor:
    """What a group's parts that may be absent are told from when they are: such a part there, or the specimen alone, [K, parts].

    Whether a small part is there is told by all groups' queries alone: on photographs of fishes a reading of its own, fitted to renders,
    said of fins that can be seen that they are absent.
    """
    pack, embed, presences = prompts.load_pack(group), embedder(model, tokenizer), WORLDS[group].presences
    if not presences:
        return torch.zeros(0, model.sizes.parts)
    said = {c.name: (pack.templates_of(c), c.state("present").phrases) for c in pack.characters if c.name in presences}
    said["host"] = (pack.host_templates, pack.host_phrases)
    texts = [[text.replace("{}", phrase) for text in templates for phrase in phrases] for templates, phrases in said.values()]
    return torch.stack([model.joint.parts(embed(each)).mean(0) for each in texts])


def learned(trainee: Trainee) -> dict[str, Tensor]:
    """What a run learned, by its name in the model that is written."""
    rooms = {
        "image.neck": folded(trainee.neck),
        "image.parts": trainee.parts.state_dict(),
        "image.query": trainee.query.state_dict(),
        "image.value": trainee.levelled(),
        "joint.first": trainee.words.first.state_dict(),
        "joint.second": trainee.words.second.state_dict(),
    }
    return {
        "logit_scale": trainee.log_scale.detach(),
        **{f"{room}.{name}": value for room, values in rooms.items() for name, value in values.items()},
    }


def mixed(own: Mapping[str, Tensor], other: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """A share of each of some weights, and the rest of those that they began with.

    A run that went on from a model lies in one valley with it, and a place between them is often better on other pictures than either
    (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).

    Args:
        own: The run's, by name.
        other: The model's, these names among others.
        share: Of the run's, above 0 and up to 1.

    Raises:
        ConfigurationError: The model has other widths.
    """
    if strange := _other_widths(own, other):
        raise ConfigurationError(f"{strange}: both can be mixed only where the run began with --start-from bundled. Leave out --share.")
    return {name: share * value + (1.0 - share) * other[name] for name, value in own.items()}


def _other_widths(own: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> str:
    """Says that a run's weights are not of the bundled model's shapes; nothing where they are."""
    strange = [name for name, value in own.items() if name not in other or other[name].shape != value.shape]
    return f"the run has other widths than the bundled model ({strange[0]} and {len(strange) - 1} more)" if strange else ""


def averaged(runs: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The means of what several runs learned, by name.

    Runs that went on from one model over different pictures lie in one valley, and their mean is often better than any of them
    (Wortsman et al., "Model soups", ICML 2022).

    Args:
        runs: What each learned, see :func:`learned`; at least one.

    Raises:
        ConfigurationError: They have other widths than the first.
    """
    first = runs[0]
    for number, other in enumerate(runs[1:], 2):
        if {name: value.shape for name, value in other.items()} != {name: value.shape for name, value in first.items()}:
            raise ConfigurationError(f"run {number} has other widths than the first: only runs that began with one model have a mean.")
    return {name: torch.stack([run[name] for run in runs]).mean(0) for name in first}


def assemble(
    trained: Sequence[Path], standing: Standing, sentences: Path, names: Sequence[str], worlds: Sequence[str], share: float = 1.0
) -> lite.LiteModel:
    """Puts the model together, and fits the joint head.

    Args:
        trained: `trained.pt` of each run; of several, the mean is taken.
        standing: What the run left as it is.
        sentences: The wordings and the teacher's embeddings of them.
        names: Names of things, for the gate.
        worlds: The groups of the run.
        share: Of the runs' weights; the rest are those of the bundled model, see :func:`mixed`.

    Raises:
        ConfigurationError: The runs cannot be mixed with each other or with the bundled model.
    """
    trainees = [_trainee(read_tensors(file, _FINISHED)) for file in trained]
    sizes = trainees[0].sizes
    model = lite.LiteModel(replace(sizes, nouns=standing.naming.width), standing.naming, standing.speaking).eval()
    image = model.image
    own = averaged([learned(trainee) for trainee in trainees])
    if share < 1.0:
        own = mixed(own, bundled_model().state_dict(), share)
    model.load_state_dict({**model.state_dict(), **own})
    image.trunk.load_state_dict(standing.trunk)
    image.nouns.load_state_dict(standing.nouns)
    model.text.load_state_dict(standing.text)
    words = PartWords(sizes)
    words.load_state_dict({name: own[f"joint.{name}"] for name in words.state_dict()})
    table = saved_sentences(sentences)
    with torch.no_grad():
        targets = F.normalize(words(table["emb"].float()), dim=-1)
    fit(model.joint, embedder(model, standing.tokenizer), table["texts"], targets, names, worlds)
    return model.eval()


def _trainee(saved: Mapping[str, Any]) -> Trainee:
    trainee = Trainee(Sizes(**{key: value for key, value in saved["sizes"].items() if key in Sizes.__dataclass_fields__}), 1.0)
    trainee.load_state_dict(saved["average"])
    return trainee.eval()


def embedder(model: lite.LiteModel, tokenizer: str) -> Callable[[Sequence[str]], Tensor]:
    """The text tower of a model: texts to unit vectors [N, 384], short texts with short ones."""
    tokens = WordPieceTokens(tokenizer, model.text.config.context)

    @torch.no_grad()
    def embed(texts: Sequence[str]) -> Tensor:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        found = torch.empty(len(texts), model.text.config.width)
        for start in range(0, len(order), 256):
            rows = order[start : start + 256]
            found[rows] = model.text(tokens.batch([texts[i] for i in rows])["ids"])
        return found

    return embed


def remember(
    model: lite.LiteModel,
    tokenizer: str,
    wordings: Sequence[str],
    names: Sequence[str],
    worlds: Sequence[str],
    pictures: int = 112,
    count: int = 48,
) -> dict[str, list[str]]:
    """Gives a model the phrases and pictures that tell what is unlike them; in place.

    Args:
        model: The model.
        tokenizer: Its `tokenizer.json`.
        wordings: Phrases about specimens and their parts.
        names: Names of things.
        worlds: The groups of the run.
        pictures: Rendered specimens of either kind that are looked at, for each group.
        count: Phrases are thinned to eight times, pictures of a group gathered into this number.

    Returns:
        `words`, `names` and `groups`, for `concept_cam.backbones.lite.save`.
    """
    step = max(1, len(wordings) // (8 * count * len(worlds)))
    model.familiar = embedder(model, tokenizer)(list(wordings)[::step])
    groups = remember_pictures(model, tokenizer, worlds, pictures, count)
    # Said by the packs themselves: what is around a host, and what the characters belong to that are drawn.
    around: list[str] = []
    for name in worlds:
        pack = prompts.load_pack(name)
        around += pack.background_phrases
        around += [each.entity.label for each in pack.characters if each.entity is not None and each.name in WORLDS[name].characters]
    return {
        "words": sorted({word for text in (*wordings, *around) for word in words_of(text)}),
        "names": sorted({" ".join(words_of(name)) for name in names}),
        "groups": groups,
    }


def remember_pictures(model: lite.LiteModel, tokenizer: str, worlds: Sequence[str], pictures: int = 112, count: int = 48) -> list[str]:
    """Gives a model the pictures of :func:`remember` alone, in place: arguments as there. Returns the group of each example."""
    embed = embedder(model, tokenizer)
    examples, groups = [], []
    for name in worlds:
        world, seen = WORLDS[name], []
        for profile in ("plain", "photographs"):
            for start in range(0, pictures, 16):
                specimens = world.sample(min(16, pictures - start), TRAIN_SEED, view="whole", profile=profile, start=7_000_000 + start)
                with torch.no_grad():
                    top = model.image.read((world.render(specimens, (256, 384)).images.float() - 127.0) / 128.0).top
                    seen.append(model.image.nouns.cells(top.mean((2, 3))))
        own = torch.cat([_named(model, embed, named_texts(name)), gathered(F.normalize(torch.cat(seen), dim=-1), count)])
        examples.append(own)
        groups += [name] * len(own)
    model.examples = torch.cat(examples)
    return groups


NAMED: Final[dict[str, tuple[str, ...]]] = {
    "fish": ("fish", "a live fish", "a fish", "a catfish", "a trout", "a goldfish", "a shark"),
    "lepidoptera": ("butterfly", "a butterfly", "a moth", "a monarch butterfly", "a cabbage white butterfly", "a ringlet butterfly"),
    "beetle": ("beetle", "a beetle", "a ladybird", "a weevil", "a ground beetle", "a leaf beetle", "a longhorn beetle"),
    "plant": ("leaf", "a leaf", "a plant", "leaves", "a tree leaf"),
}
"""Group -> texts whose vectors are remembered beside the pictures: what the backbone calls such a thing."""


def named_texts(group: str) -> tuple[str, ...]:
    """Returns the texts of :data:`NAMED`; for a group that is not there, what its world calls a specimen."""
    return NAMED.get(group, WORLDS[group].host_phrases)


@torch.no_grad()
def _named(model: lite.LiteModel, embed: Callable[[Sequence[str]], Tensor], texts: Sequence[str]) -> Tensor:
    return F.normalize(model.image.nouns.text(embed(texts)), dim=-1)


def gathered(vectors: Tensor, count: int, rounds: int = 30) -> Tensor:
    """Means of groups of unit vectors [N, D] that lie together (spherical k-means): [count, D]."""
    centres = vectors[torch.randperm(len(vectors), generator=torch.Generator().manual_seed(0))[:count]]
    for _ in range(rounds):
        nearest = (vectors @ centres.T).argmax(1)
        centres = torch.stack(
            [F.normalize(vectors[nearest == k].mean(0), dim=0) if (nearest == k).any() else centre for k, centre in enumerate(centres)]
        )
    return centres


def things() -> list[str]:
    """Names of things: the lemmas of ImageNet's classes, and the everyday names of their families."""
    return [
        *(name for noun in dictionary_nouns("imagenet-1k") for name in noun.names),
        *(name for listed, _ in families() for name in listed),
    ]


def _share(text: str) -> float:
    value = above_zero(text)
    if value > 1.0:
        raise argparse.ArgumentTypeError(f"received {text!r}: expected a share above 0, up to 1.")
    return value


def main() -> None:
    """Reads the command line and writes the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--run",
        dest="runs",
        action="append",
        default=[],
        type=existing,
        help="folder of a run of train.py; several times: the mean of the runs (default: none, the bundled model with other --nouns)",
    )
    parser.add_argument("--output", type=Path, required=True, help="where the model goes")
    parser.add_argument("--text", type=existing, help="what training.distil wrote (default: the text tower of the bundled model)")
    parser.add_argument("--nouns", type=existing, help="what training.noun_rows wrote (default: the nouns of the bundled model)")
    parser.add_argument("--gate", action="store_true", help="the bundled model with its gate (which texts speak of what) fitted further")
    parser.add_argument(
        "--specialist",
        choices=list(WORLDS),
        metavar="GROUP",
        help="the bundled model, with what the run learned of one group (for runs with --learn map, group, states or reading)",
    )
    parser.add_argument(
        "--takes",
        choices=list(TAKEN),
        default="all",
        help="what a specialist takes of a run for one group: its map and how it tells states, or one of these (default: all)",
    )
    parser.add_argument(
        "--heard",
        type=_share,
        help="how much is heard of what a specialist says of states; the rest is what all queries say (default: as before, or half)",
    )
    parser.add_argument("--share", type=_share, default=1.0, help="share of the runs; the rest is the bundled model's (default: 1)")
    parser.add_argument("--sentences", type=Path, help="embeddings of the wordings (default: those of the first run)")
    arguments = parser.parse_args()
    if arguments.gate:
        if (
            arguments.runs
            or arguments.share != 1
            or any((arguments.nouns, arguments.text, arguments.sentences, arguments.specialist))
            or arguments.takes != "all"
            or arguments.heard
        ):
            parser.error(
                "--gate is for the bundled model as it is: a run's gate is fitted when it is written. Give --gate and --output alone."
            )
        regated(arguments.output)
        return
    if arguments.specialist:
        if len(arguments.runs) != 1 or any((arguments.nouns, arguments.text, arguments.sentences)):
            parser.error("--specialist is for the bundled model and the neck of one run: give one --run, --specialist and --output alone.")
        if specialised(arguments.runs[0], arguments.specialist, arguments.output, arguments.takes, arguments.share, arguments.heard):
            print(
                f"{arguments.specialist}: its states were told by a reading of its own, fitted to the neck that this one replaces. That "
                "reading is left out, and the queries of all groups tell its states. To fit another, put this model in the place of the "
                "bundled one, run train.py --start-from bundled --learn states, and training.sharpness after it."
            )
        return
    if arguments.takes != "all" or arguments.heard:
        given = "--heard says how much is heard of a specialist" if arguments.heard else "--takes says what a specialist takes of a run"
        parser.error(f"{given}: give --specialist as well.")
    if not arguments.runs:
        if arguments.nouns is None or arguments.text is not None:
            parser.error("give --run, or --nouns alone for the bundled model with other nouns, or --gate.")
        renamed(arguments.nouns, arguments.output)
        return
    if (arguments.text is None) != (arguments.nouns is None):
        parser.error("give --text and --nouns, or neither: the nouns were fitted to their text tower.")
    worlds, *others = [list(json.loads((run / "config.json").read_text(encoding="utf-8"))["worlds"]) for run in arguments.runs]
    if any(other != worlds for other in others):
        parser.error("the runs drew pictures of different groups: only runs that began with one model have a mean.")
    standing = bundled() if arguments.text is None else made(arguments.text, arguments.nouns)
    sentences = arguments.sentences or arguments.runs[0] / "sentences.pt"
    names = things()
    model = assemble([run / "trained.pt" for run in arguments.runs], standing, sentences, names, worlds, arguments.share)
    known = remember(model, standing.tokenizer, saved_sentences(sentences)["texts"], names, worlds)
    lite.save(model, standing.tokenizer, arguments.output, known)


if __name__ == "__main__":
    run_script(main)
