"""An index: features of a collection on disk, queried with concepts as often as one likes."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError, MissingExtraError
from concept_cam.core.features import PatchFeatures
from concept_cam.core.names import choose, display
from concept_cam.core.settings import Settings
from concept_cam.index.codec import Codec

if TYPE_CHECKING:
    import pyarrow as pa

    from concept_cam.core.results import Localization
    from concept_cam.index.checking import Check
    from concept_cam.index.storage import Part
    from concept_cam.localizer import Localizer

__all__ = ["RANKINGS", "READING_SETTINGS", "Hit", "Hits", "Index"]

RANKINGS: dict[str, str] = {
    "patch": "by the score of the best patch: pictures that show the target somewhere",
    "image": "by the image embedding: pictures that are about the target",
}
"""How pictures are ranked."""

READING_SETTINGS = ("attention", "resize", "size", "views", "mean", "std", "interpolation", "resize_mode", "max_pixels")
"""Settings that decide the features, and are the index's own; all others are the query's."""


class Index:
    """A collection's features. Nothing is read before it is used; may be shared among threads, sent to processes and iterated.

    Args:
        path: The index's folder.
        infos: Contents of ``index.json`` of each of its folders: one, or one per shard.
        files: Its parts in order, each with the number of its folder.
    """

    def __init__(self, path: Path, infos: Sequence[Mapping[str, Any]], files: Sequence[tuple[int, Path]]) -> None:
        self.path, self.infos, self.files = path, tuple(infos), tuple(files)
        self._parts: dict[int, Part] = {}
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Index:
        """Opens an index, or a folder that holds the shards of one.

        Raises:
            DataError: There is none, or its shards are not of one piece.
            MissingExtraError: pyarrow is not installed.
        """
        try:
            from concept_cam.index.storage import INDEX_PART_PATTERN, INDEX_PARTS, INFO_FILE, index_folders, read_index_info
        except ImportError as error:
            raise MissingExtraError("pyarrow", "annotate", "an index") from error
        folder = Path(path)
        folders = index_folders(folder)
        if not folders:
            # A folder that is there is one of pictures, most likely: no index belongs among them.
            pictures, own = (folder, f"{folder.name}.index") if folder.is_dir() else ("photos/", folder)
            raise DataError(f"{str(folder)!r} is no index: it holds no {INFO_FILE}. Make one:  concept-cam index {pictures} -o {own}")
        infos = [read_index_info(one) for one in folders]
        for one, info in zip(folders, infos):
            if info["configuration"] != infos[0]["configuration"]:
                raise DataError(f"{one} and {folders[0]} were not made in the same way: another model, other settings or another format.")
        files = [(number, file) for number, one in enumerate(folders) for file in sorted((one / INDEX_PARTS).glob(INDEX_PART_PATTERN))]
        return cls(folder, infos, files)

    def __reduce__(self) -> Any:
        return Index, (self.path, self.infos, self.files)

    def __repr__(self) -> str:
        return f"<Index {display(str(self.path))!r}: {len(self)} entries, {self.model!r}, {self.codec.dtype}>"

    # ----------------------------------------------------------------------------------------------------- what it is

    @property
    def configuration(self) -> Mapping[str, Any]:
        """What decides its contents: model, settings, number format."""
        found: Mapping[str, Any] = self.infos[0]["configuration"]
        return found

    @property
    def model(self) -> str:
        """Name of the model that made the features."""
        return str(self.configuration["model"])

    @property
    def weights_hash(self) -> str:
        """Hash of its weights."""
        return str(self.configuration["weights_hash"])

    @cached_property
    def codec(self) -> Codec:
        """How features are kept; shards of one index share it."""
        return Codec.load(self.files[0][1].parents[1] if self.files else self.path, dict(self.configuration["codec"]))

    def part(self, number: int) -> Part:
        """Returns a part, mapped into memory."""
        from concept_cam.index.storage import Part

        if number not in self._parts:
            with self._lock:
                self._parts.setdefault(number, Part(self.files[number][1]))
        return self._parts[number]

    def parts(self) -> Iterator[Part]:
        """Yields the parts in order.

        Raises:
            DataError: One is damaged or missing.
        """
        return (self.part(number) for number in range(len(self._bounds) - 1))

    @cached_property
    def _bounds(self) -> np.ndarray:
        counts = [len(self.part(number)) for number in range(len(self.files))]
        for number, info in enumerate(self.infos):
            # What was noted when the last session began or ended; more may have come since, less is a loss.
            held = sum(count for count, (own, _) in zip(counts, self.files) if own == number)
            noted = info["counts"].get("records", 0)
            if isinstance(noted, int) and held < noted:
                raise DataError(
                    f"the index {display(str(self.path))!r} holds {held} entries of the {noted} that index.json notes: a file of its parts "
                    "is missing. Copy it again, or index the same pictures again with --resume: what is missing is encoded anew."
                )
        if lack := self._lack(sum(counts)):
            warnings.warn(lack, UserWarning, stacklevel=2)
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def _lack(self, entries: int) -> str:
        """Says in what the index is less than all of it though nothing was lost of what it holds; nothing where it is whole."""
        from concept_cam.index.checking import missing_shards
        from concept_cam.index.storage import index_folders

        name = display(str(self.path))
        if lost := missing_shards(self.path, index_folders(self.path)):
            return f"the index {name!r} is not whole: {', '.join(lost)} of its shards are missing, and so they are from every answer."
        if not all(info.get("finished", True) for info in self.infos):
            return (
                f"the index {name!r} is not finished: it holds {entries} entries so far, and no more are ranked or annotated. Repeat the "
                "command that made it with --resume to encode the rest."
            )
        return ""

    def __len__(self) -> int:
        return int(self._bounds[-1])

    def _place(self, entry: int) -> tuple[Part, int]:
        if not -len(self) <= entry < len(self):
            raise IndexError(f"entry {entry} of {len(self)}")
        entry %= len(self)
        number = int(np.searchsorted(self._bounds, entry, "right")) - 1
        return self.part(number), entry - int(self._bounds[number])

    @property
    def pictures(self) -> pa.Table:
        """What describes the entries, one row each; see :data:`concept_cam.index.storage.INDEX_COLUMNS`."""
        import pyarrow as pa

        from concept_cam.index.storage import INDEX_COLUMNS

        tables = [part.table for part in self.parts()]
        if not tables:
            return pa.table({name: pa.array([], kind) for name, (kind, _) in INDEX_COLUMNS.items()})
        return pa.concat_tables(tables, promote_options="default")

    def row(self, entry: int) -> dict[str, Any]:
        """Returns what describes one entry."""
        part, number = self._place(entry)
        return part.row(number)

    def features(self, entry: int) -> PatchFeatures:
        """Returns the features of one entry, as near to the encoded ones as the index keeps them."""
        import torch

        from concept_cam.index.storage import geometry_of

        part, number = self._place(entry)
        row = part.row(number)
        geometry = geometry_of(row["geometry"])
        patches = self.codec.decode(part.codes(number)).reshape(*geometry.grid, -1)
        return PatchFeatures(
            patches=torch.from_numpy(patches),
            image=torch.from_numpy(part.images[number].copy()),
            geometry=geometry,
            model=self.model,
            weights_hash=self.weights_hash,
            attention=row["attention"],
            source=row["path"] or row["source"],
            views=row["views"],
            reading=self.reading,
        )

    def valid(self, entry: int) -> np.ndarray:
        """Returns bool [h, w]: where the model looked at an entry."""
        from concept_cam.index.storage import geometry_of

        part, number = self._place(entry)
        return part.codes(number).norms.reshape(geometry_of(part.row(number)["geometry"]).grid) > 0

    def __iter__(self) -> Iterator[PatchFeatures]:
        return (self.features(entry) for entry in range(len(self)))

    @cached_property
    def settings(self) -> Settings:
        """How its pictures were read: the defaults but for :data:`READING_SETTINGS`."""
        return Settings().with_values(**{name: value for name, value in self.configuration["settings"].items() if name in READING_SETTINGS})

    def reading_as_made(self, settings: Settings) -> Settings:
        """Returns settings with :data:`READING_SETTINGS` as the index was made with; what it left to the model is left to it again."""
        return replace(settings, **{name: getattr(self.settings, name) for name in READING_SETTINGS})

    @cached_property
    def reading(self) -> Mapping[str, Any]:
        """How the pictures were brought to the model's input, as :attr:`PatchFeatures.reading` says it."""
        return self.settings.reading()

    # ----------------------------------------------------------------------------------------------------------- asking

    def localizer(self, localizer: Localizer | None = None, **settings: Any) -> Localizer:
        """Returns the model of the index, with the settings that made it; loads it by its name where none is given.

        Args:
            localizer: A model that is loaded already.
            **settings: Settings of the query: ``gamma``, ``weighting``, ``feature_norm``, ``templates`` ...

        Raises:
            ConfigurationError: Another model, or a setting that the index has fixed.
        """
        from concept_cam.localizer import Localizer

        found = localizer or Localizer.from_pretrained(self.model, settings=self.settings)
        if found.backbone.weights_hash != self.weights_hash:
            raise ConfigurationError(
                f"the index {display(str(self.path))!r} holds features of {self.model!r} (weights {self.weights_hash}), this model is "
                f"{found.backbone.name!r} ({found.backbone.weights_hash}): ask with the model of the index, or index again."
            )
        # What the index left to the model is the model's again, whatever the localizer that was given reads pictures with.
        made = found.under(self.reading_as_made(found.settings))
        asked = made.with_settings(**settings)
        for name in settings:
            if name in READING_SETTINGS and asked.reading[name] != made.reading[name]:
                own, other = (_brief(reader.reading[name]) for reader in (made, asked))
                raise ConfigurationError(
                    f"the index was made with {name} {own}, which cannot become {other} without its pictures: leave {name} out, or index "
                    "them again."
                )
        return made.with_settings(**{name: value for name, value in settings.items() if name not in READING_SETTINGS})

    def query(
        self,
        concepts: Concept | Sequence[Concept],
        *,
        top: int = 50,
        by: str = "patch",
        among: np.ndarray | None = None,
        localizer: Localizer | None = None,
        **settings: Any,
    ) -> tuple[Hits, ...]:
        """Ranks the entries by concepts.

        Args:
            concepts: One or more.
            top: Best entries of each.
            by: A name of :data:`RANKINGS`.
            among: bool [N], the entries that may rank; ``None`` for all.
            localizer: The index's model, if it is loaded already.
            **settings: Settings of the query: ``gamma``, ``weighting``, ``feature_norm``, ``templates``.

        Returns:
            The best entries of each concept, best first.

        Raises:
            ConfigurationError: Another model, or an unknown ranking.
            PromptError: A text that the model cannot embed.
        """
        choose(by, RANKINGS, "ranking")
        if top < 1:
            raise ConfigurationError(f"top must be at least 1, received {top}.")
        asker = self.localizer(localizer, **settings)
        asked = asker.phrased(concepts)
        values = self.values(asked, by=by, localizer=asker)
        if among is not None:
            values = np.where(among, values, -np.inf)
        from concept_cam.index.search import ranking

        hits = []
        for concept, own in zip(asked, values):
            order = ranking(own, top)
            hits.append(Hits(concept, order, own[order], self, asker))
        return tuple(hits)

    def values(self, concepts: Sequence[Concept], *, by: str = "patch", localizer: Localizer | None = None) -> np.ndarray:
        """Returns what entries are ranked by, float32 [C, N]: the score of the best patch, or the cosine of the image embedding.

        Minus infinity where the model saw nothing. Of float16 features the scores are exact to about 1e-4.
        """
        import torch

        from concept_cam.core.directions import IMAGE_DEPENDENT, coefficients, directions
        from concept_cam.core.scoring import image_scores
        from concept_cam.index.search import best_patches, threads

        asker = self.localizer(localizer) if localizer is None else localizer
        texts, settings, scale = asker.directions(list(concepts)), asker.settings, asker.backbone.logit_scale
        device = texts.texts.device
        columns: list[np.ndarray] = [np.zeros((len(concepts), 0), dtype=np.float32)]
        with torch.inference_mode():
            if by == "image":
                for part in self.parts():
                    images = torch.from_numpy(part.images.copy()).to(device)
                    terms = coefficients(texts, images, weighting=settings.weighting, gamma=settings.gamma, logit_scale=scale)
                    columns.append(image_scores(images, texts, terms).T.cpu().numpy())
            elif settings.weighting in IMAGE_DEPENDENT:  # every picture has directions of its own
                step = settings.batch_size
                for start in range(0, len(self), step):
                    answers = asker.score([self.features(entry) for entry in range(start, min(start + step, len(self)))], list(concepts))
                    seen = [np.where(self.valid(start + row), answer.scores, -np.inf) for row, answer in enumerate(answers)]
                    columns.append(np.stack([np.nanmax(maps, axis=(1, 2)) for maps in seen], axis=1).astype(np.float32))
            else:
                nothing = torch.zeros(1, texts.texts.shape[1], device=device)
                terms = coefficients(texts, nothing, weighting=settings.weighting, gamma=settings.gamma, logit_scale=scale)
                along = directions(texts, terms)[0].cpu().numpy()
                with threads() as spread:
                    columns += [best_patches(part, self.codec, along, settings.feature_norm, spread) for part in self.parts()]
        return np.concatenate(columns, axis=1)

    def locate(self, entry: int, concepts: Sequence[Concept], localizer: Localizer) -> list[Localization]:
        """Answers concepts for one entry from its features; the picture is not encoded again."""
        answers = localizer.score(self.features(entry), list(concepts))
        valid = self.valid(entry)
        if not valid.all():
            answers = replace(answers, scores=np.where(valid, answers.scores, np.float32(np.nan)))
        return list(answers)

    # ----------------------------------------------------------------------------------------------- whether it is whole

    def check(self, progress: Callable[[int], None] | None = None) -> Check:
        """Reads every byte of what is on the disk now and compares it with the hashes that were kept when it was written.

        Opening an index does not: it is mapped, and a byte that has changed since is not noticed.

        Args:
            progress: Called with the number of bytes after every part.

        Returns:
            What is wrong, if anything: ``check().sound``, ``check().faults``; parts without a hash are named in ``unhashed``.
        """
        from concept_cam.index.checking import check_index

        return check_index(Index.open(self.path), progress)

    # ---------------------------------------------------------------------------------------------------------- growing

    def append(self, features: Sequence[PatchFeatures], names: Sequence[str] | None = None) -> Index:
        """Adds encoded pictures as one more part, whole or not at all, and returns the index with them.

        Args:
            features: What :meth:`concept_cam.Localizer.encode` gave.
            names: Name of each picture; by default its source.

        Raises:
            ConfigurationError: Features of another model or of inputs that were made in another way, or without a name.
            OutputError: It cannot be written, or another process is writing.
        """
        from concept_cam.index.writing import append_features

        append_features(self, features, names)
        return Index.open(self.path)


def _brief(value: Any) -> str:
    """A value as an option takes it."""
    parts = list(dict.fromkeys(value)) if isinstance(value, list) else [value]
    return repr(parts[0] if len(parts) == 1 else value)


@dataclass(frozen=True, eq=False)
class Hits(Sequence["Hit"]):
    """The best entries for one concept, best first.

    Attributes:
        concept: What was asked.
        entries: int64 [N], positions in the index.
        values: float32 [N], what they were ranked by.
    """

    concept: Concept
    entries: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    _index: Index = field(repr=False)
    _localizer: Localizer = field(repr=False)

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Hit: ...
    @overload
    def __getitem__(self, index: slice) -> list[Hit]: ...
    def __getitem__(self, index: int | slice) -> Hit | list[Hit]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"hit {index} of {len(self)}")
        index %= len(self)
        return Hit(self.concept, index + 1, int(self.entries[index]), float(self.values[index]), self._index, self._localizer)

    def __iter__(self) -> Iterator[Hit]:
        return (self[position] for position in range(len(self)))


@dataclass(frozen=True, eq=False)
class Hit:
    """One entry that was found.

    Attributes:
        concept: What was asked.
        rank: 1 for the best.
        entry: Position in the index.
        value: What it was ranked by.
    """

    concept: Concept
    rank: int
    entry: int
    value: float
    _index: Index = field(repr=False)
    _localizer: Localizer = field(repr=False)

    @cached_property
    def row(self) -> dict[str, Any]:
        """What the index says of the entry."""
        return self._index.row(self.entry)

    @property
    def source(self) -> str:
        """The picture."""
        return str(self.row["path"] or self.row["source"])

    @cached_property
    def found(self) -> Localization:
        """Where the concept is in it, from the features of the index."""
        return self._index.locate(self.entry, [self.concept], self._localizer)[0]
