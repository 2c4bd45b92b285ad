"""Annotates a collection: from pictures to a table of trait calls, regions and measures, through any interruption."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import warnings
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from concept_cam.collection.calls import Limits
from concept_cam.collection.engines import check_engine, find_engine
from concept_cam.collection.inputs import Collection, Columns, Item, Shard, open_collection, parse_shard
from concept_cam.collection.inputs.items import SCALE, is_url, read_scale
from concept_cam.collection.meaning import said_as
from concept_cam.collection.others import Passed
from concept_cam.collection.plan import DECODING, Identity, Plan, Regions, describe
from concept_cam.collection.questions import build_questions
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConceptCamError, ConfigurationError, DataError, MissingExtraError, reason_of
from concept_cam.core.names import DEFAULT_MODEL, choose, did_you_mean, some_of
from concept_cam.core.progress import Progress, Tracker
from concept_cam.core.settings import PREPROCESS_SETTINGS, Settings
from concept_cam.pictures.endings import PICTURE_SUFFIXES
from concept_cam.pictures.pages import FirstPages
from concept_cam.trust.kept import Trust, opened

if TYPE_CHECKING:
    from concept_cam.collection.engines.annotator import Answers, Options
    from concept_cam.collection.formats import Choice
    from concept_cam.collection.inputs.specimens import Taken, TakenMasks
    from concept_cam.collection.limits import Calibration
    from concept_cam.collection.run_writer import RunWriter
    from concept_cam.collection.runs import Run
    from concept_cam.index.index import Index
    from concept_cam.localizer import Localizer

__all__ = [
    "PART_PICTURES",
    "Estimate",
    "Interrupted",
    "Job",
    "Request",
    "Wanted",
    "annotate",
    "estimate",
    "make_request",
    "require_arrow",
    "run_job",
]

PART_PICTURES = 500
"""Pictures of one part of the table; a part is also written after a minute, so that an interruption costs no more."""


class Interrupted(KeyboardInterrupt):
    """The run was asked to end and did so cleanly; what was finished is written."""


@dataclass(frozen=True)
class Request:
    """What is to be annotated and how; everything here decides the results.

    Attributes:
        inputs: Folder, pattern, table, Parquet, tar shards, URL, or ``"-"`` for the list in ``lines``; see
            :data:`concept_cam.collection.inputs.LAYOUTS`.
        output: Folder of the run.
        traits: Trait packs: names, files, ``"pack:character"``, or :class:`~concept_cam.prompts.Pack` objects.
        layout: Input layout; ``None`` to find out.
        column: Column of the picture's path, URL or bytes.
        box_column: Column of specimen boxes.
        mask_column: Column of specimen masks.
        root: Folder to which relative paths in a list or table refer.
        lines: The lines of a list, for ``inputs="-"``.
        boxes: CSV table of specimen boxes.
        ignore: Folder of masks, or CSV table of boxes, of what must not be read (labels, rulers).
        px_per_mm: Scale in original pixels per millimetre, or the column that holds it.
        limits: Below which evidence no call is made.
        calibration: Limits that ``concept-cam calibrate`` fitted; they take the place of those in ``limits``.
        trust: Rules and guarantees that ``concept-cam calibrate`` fitted to masks.
        alpha: Risk of the guarantee; by default 0.1, where it was fitted.
        regions: How regions are found.
        keep_scores: Keep grid scores (float16) in the table.
        shard: ``"i/n"``, ``"slurm"`` or a :class:`~concept_cam.collection.inputs.Shard`: do only this part, in its own folder inside
            ``output``.
        limit: Stop after so many pictures of the input.
        decoding: How pictures are decoded, a name of :data:`concept_cam.collection.plan.DECODING`.

    Raises:
        ConfigurationError: A value that cannot be used.
    """

    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
    output: str | os.PathLike[str]
    traits: Any = "fish"
    layout: str | None = None
    column: str | None = None
    box_column: str | None = None
    mask_column: str | None = None
    root: str | None = None
    lines: Iterable[str] | None = None
    boxes: str | os.PathLike[str] | None = None
    ignore: str | os.PathLike[str] | None = None
    px_per_mm: float | str | None = None
    limits: Limits = field(default_factory=Limits)
    calibration: str | os.PathLike[str] | None = None
    trust: str | os.PathLike[str] | None = None
    alpha: float | None = None
    regions: Regions = field(default_factory=Regions)
    keep_scores: bool = False
    shard: str | Shard | None = None
    limit: int | None = None
    decoding: str = "fast"

    def __post_init__(self) -> None:
        choose(self.decoding, DECODING, "decoding")
        if self.px_per_mm is not None and not isinstance(self.px_per_mm, str):
            scale = read_scale(self.px_per_mm)
            if scale is None:
                raise ConfigurationError(f"px_per_mm must be {SCALE}, or the name of a column, received {self.px_per_mm!r}.")
            object.__setattr__(self, "px_per_mm", scale)
        if self.limit is not None and self.limit < 1:
            raise ConfigurationError(f"limit must be at least 1, received {self.limit}.")

    @property
    def given(self) -> list[str]:
        """The inputs as texts."""
        inputs = self.inputs
        return [os.fspath(inputs)] if isinstance(inputs, (str, os.PathLike)) else [os.fspath(item) for item in inputs]

    @property
    def packs(self) -> list[Any]:
        """The trait packs, one by one."""
        single = isinstance(self.traits, (str, bytes, Path, Mapping)) or hasattr(self.traits, "characters")
        # What is neither a pack nor several is told by whoever loads it.
        return [self.traits] if single or not isinstance(self.traits, Iterable) else list(self.traits)


def make_request(inputs: Any, output: Any, traits: Any, values: Mapping[str, Any]) -> Request:
    known = {item.name for item in fields(Request)}
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigurationError(f"annotate has no option {name!r}.{hint} Known: {', '.join(sorted(known))}.")
    return Request(inputs, output, traits, **values)


def annotate(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    traits: Any = "fish",
    *,
    localizer: Localizer | None = None,
    model: str = "demo",
    device: str = "auto",
    dtype: str = "auto",
    settings: Settings | None = None,
    named: Container[str] = (),
    resume: bool = False,
    engine: str = "local",
    workers: int | None = None,
    batch_size: int | None = None,
    ray_address: str | None = None,
    part_pictures: int = PART_PICTURES,
    progress: Callable[[Progress], None] | None = None,
    ready: Callable[[Localizer, list[Concept]], None] | None = None,
    say: Callable[[str], None] | None = None,
    **request: Any,
) -> Run:
    """Annotates a collection with trait packs and returns the finished run.

    Call it under ``if __name__ == "__main__":`` in a script, or with ``workers=0``: worker processes import the script that started them.

    Args:
        inputs: Folder, pattern, table, Parquet, tar shards or URL.
        output: Folder of the run.
        traits: Trait packs.
        localizer: A model that is loaded already; else ``model``, ``device`` and ``dtype`` say which.
        model: Model name.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        dtype: Number format of the towers, or ``"auto"``: the fastest one on this machine in which maps stay nearly the same; see
            :mod:`concept_cam.collection.formats`.
        settings: How pictures are read and scored.
        named: Names of settings that are meant though they may be the defaults: an index that was made otherwise refuses them.
        resume: Continue a run that is there; starts one where there is none.
        engine: A name of :data:`concept_cam.collection.engines.ENGINES`.
        workers: Worker processes; ``None`` for as many as there are processors, 0 for none. On a processor, set ``OMP_WAIT_POLICY=PASSIVE``
            before torch is imported, as the command line does, so that torch's waiting threads leave it to them.
        batch_size: Pictures per forward pass; ``None`` to find out.
        ray_address: A Ray cluster that runs, for the engine ``ray``; ``None`` to start one here.
        part_pictures: Pictures of one part of the table.
        progress: Called after every batch.
        ready: Called once the model is loaded, with it and with what will be asked.
        say: Called with a line about the number format that was chosen.
        **request: The other fields of :class:`Request`: ``px_per_mm``, ``boxes``, ``ignore``, ``limits``, ``shard`` ...

    Raises:
        ConceptCamError: An option or the input cannot be used; single pictures that cannot be used are listed in ``errors.csv`` instead.
        Interrupted: Ctrl-C or SIGTERM; everything finished is written, continue with ``resume=True``.
    """
    require_arrow()
    check_engine(engine, ray_address)
    job = Job.open(make_request(inputs, output, traits, request))
    from concept_cam.collection.engines.annotator import Options
    from concept_cam.collection.run_folder import RUN_FILE
    from concept_cam.collection.run_writer import RunWriter, check_folder, named_as_before
    from concept_cam.collection.runs import read_run, read_run_info

    check_folder(job.folder, resume)  # before a model is loaded, which can take minutes
    wanted = Wanted(localizer, model, device, dtype, settings, batch_size, named)
    earlier: Mapping[str, Any] = {}
    if resume and (job.folder / RUN_FILE).is_file():
        earlier = read_run_info(job.folder)
        wanted = wanted.as_begun(earlier)
    elif job.shard is not None:
        earlier = _another_shard(Path(job.request.output))
    loaded, choice = wanted.load(job)
    if job.index is None:
        loaded = _said_as_before(earlier.get("configuration") or {}, loaded)
    if choice is not None and say is not None:
        say(str(choice))
    plan = job.plan(loaded)
    if ready is not None:
        ready(loaded, list(plan.questions.concepts))
    writer = RunWriter(
        job.folder,
        named_as_before(earlier, job.configuration(plan, loaded.dtype_name), job.collection.root, os.getcwd()),
        job.facts(plan, loaded, engine, choice),
        resume=resume,
        part_pictures=part_pictures,
    )
    try:
        run_job(job, plan, loaded, writer, engine, Options(workers, ray_address), progress)
    finally:
        writer.release()
    return read_run(job.folder)


def _another_shard(folder: Path) -> Mapping[str, Any]:
    """Returns what another shard of the run notes, so that this one says the same in the same words; nothing where it is the first."""
    from concept_cam.collection.run_folder import RUN_FILE
    from concept_cam.collection.runs import read_run_info

    for noted in sorted(folder.glob(f"shard-*/{RUN_FILE}")):
        with suppress(DataError):
            return read_run_info(noted.parent)
    return {}


def _said_as_before(configuration: Mapping[str, Any], localizer: Localizer) -> Localizer:
    """Returns a localizer whose settings read as those of the run that is continued, where they mean the same: what the model does of
    itself may be named, or not.
    """
    # What leaves the choice to the model is not recorded; views are noted as they are used.
    said: dict[str, Any] = {name: configuration.get(name) for name in PREPROCESS_SETTINGS}
    said |= {name: configuration[name] for name in ("attention", "resize", "size", "max_pixels") if name in configuration}
    return said_as(localizer, said) if configuration else localizer


def run_job(
    job: Job,
    plan: Plan,
    localizer: Localizer,
    writer: RunWriter,
    engine: str,
    options: Options,
    progress: Callable[[Progress], None] | None,
) -> None:
    stream = _PendingPictures(job, writer)
    count = _Count(job)
    if (expected := count()) is not None:
        writer.expect(expected)
    tracker = Tracker(count, len(writer.done), writer.counts["errors"])
    pages = FirstPages()
    with _stoppable() as stop:
        for found in find_engine(engine)(stream, plan, localizer, options, stop.is_set):
            writer.add(found)
            _count_pages(pages, found)
            if progress is not None:
                progress(tracker.add(len(found.pictures), sum(len(picture.errors) for picture in found.pictures)))
    writer.counts["duplicates"] = stream.duplicates
    _tell_pages(pages)
    if stop.is_set():
        writer.close(finished=False, facts={"expected": count()})
        raise Interrupted("interrupted: everything finished is written; continue with --resume.")
    writer.close(
        finished=True,
        facts={"input": {**job.facts_of_input, "pictures": stream.count, "fingerprint": stream.fingerprint}},
    )
    for said in stream.passed.findings(writer.held(), writer.verb, writer.noun) if stream.passed else ():
        warnings.warn(said, UserWarning, stacklevel=3)
    job.tell_untaken()  # after it is finished, whoever makes errors of warnings


def _count_pages(pages: FirstPages, answers: Answers) -> None:
    for picture in answers.pictures:
        if picture.first_page:
            pages.add(repr(picture.source))


def _tell_pages(pages: FirstPages) -> None:
    if text := pages.text():
        warnings.warn(text, UserWarning, stacklevel=3)


class _Count:
    """Counts the pictures of the input beside the work: listing a large collection takes long, and the work need not wait for it."""

    PATIENCE = 2.0
    """Seconds that the work waits for a count, so that it is there from the first line where it is quick."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._found: int | None = None
        thread = threading.Thread(target=self._count, daemon=True)
        thread.start()
        thread.join(self.PATIENCE)

    def _count(self) -> None:
        # What is wrong with the input is said where the pictures are read.
        with suppress(Exception):
            self._found = self._job.count()

    def __call__(self) -> int | None:
        return self._found


class _PendingPictures:
    """The pictures that are still to be done; counts and fingerprints all of them as they pass."""

    def __init__(self, job: Job, writer: RunWriter) -> None:
        self._job, self._writer = job, writer
        self._hash = hashlib.sha256()
        self.count = 0
        self.duplicates = 0
        root = job.collection.root
        self.passed = Passed(writer.begun, bool(writer.stood_in() - {root}), writer.failed)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the sources in order."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Item]:
        from concept_cam.collection.schema import image_key

        pictures, entries = type(self._writer.done)(), type(self._writer.done)()
        for item in _guarded(self._job.items(self._job.take)):
            self.count += 1
            self._hash.update(item.source.encode("utf-8", "surrogatepass") + b"\n")
            # Two entries of one picture that say the same are one; two that differ (occurrences that share a photograph) are both kept. The
            # first has the picture's own key, whether or not others follow.
            fresh = entries.add(image_key(item.identity)) if item.occurrence else None
            first = pictures.add(image_key(item.source))
            if fresh is False or (fresh is None and not first):
                self.duplicates += 1
                continue
            found = replace(item, occurrence="") if first else item
            key = image_key(found.identity)
            if self._writer.done.add(key):
                yield found
            else:
                self.passed.add(key, found)


def _guarded(items: Iterator[Item]) -> Iterator[Item]:
    """Passes the input's entries on; what ends it before its end is one clear error, after which the run can be continued."""
    count = 0
    try:
        for item in items:
            count += 1
            yield item
    except ConceptCamError:
        raise
    except Exception as error:
        raise DataError(f"the input cannot be read further than its first {count} entries: {reason_of(error)}") from error


@contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Turns the first Ctrl-C or SIGTERM into a flag; a second one ends the process as usual."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    names = [signal.SIGINT, signal.SIGTERM]
    before = {name: signal.getsignal(name) for name in names}

    def restore() -> None:
        for name, handler in before.items():
            signal.signal(name, handler)

    def ask(_number: int, _frame: Any) -> None:
        stop.set()
        restore()

    for name in names:
        signal.signal(name, ask)
    try:
        yield stop
    finally:
        restore()


# ------------------------------------------------------------------------------------------------------------- preparing


def require_arrow() -> None:
    """Checks that the table can be written at all.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("pyarrow", "annotate", "annotating a collection") from error


@dataclass(frozen=True)
class Wanted:
    """The model that a caller wants.

    Attributes:
        localizer: One that is loaded already; else the next three say which.
        model: Model name.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        dtype: Number format of the towers, or ``"auto"``.
        settings: How pictures are read and scored.
        batch_size: Pictures per forward pass; ``None`` to find out.
        named: Names of settings that are meant though they may be the defaults.
    """

    localizer: Localizer | None
    model: str
    device: str
    dtype: str
    settings: Settings | None
    batch_size: int | None
    named: Container[str] = ()

    def as_begun(self, info: Mapping[str, Any]) -> Wanted:
        """Returns what continues a run: in its number format and, since on a GPU the last digits depend on it, with its batch size."""
        return replace(
            self,
            dtype=info.get("dtype") or self.dtype if self.dtype == "auto" else self.dtype,
            batch_size=self.batch_size or info.get("batch_size"),
        )

    def load(self, job: Job) -> tuple[Localizer, Choice | None]:
        """Loads it, in the number format that it is fastest in where that is left open; of an index, the model that made it, in its format.

        Returns:
            The model, and how its number format was chosen; ``None`` where it was given.

        Raises:
            ConfigurationError: The settings read pictures in another way than those of an index were read.
        """
        if job.index is None:
            return self._load(job)
        from concept_cam.index.index import READING_SETTINGS, Index

        index = Index.open(job.index)
        name = index.model if self.model == DEFAULT_MODEL else self.model
        # Settings do not tell what was said from what was left: what is other than the default was said, and what is named beside them.
        given, plain = self.settings or Settings(), Settings()
        asked = {name: value for name in READING_SETTINGS if (value := getattr(given, name)) != getattr(plain, name) or name in self.named}
        # Only the text tower is needed, which nothing is waiting for: what counts is that the answers are those of the pictures.
        own = replace(
            self,
            model=name,
            dtype=_format_of(index) if self.dtype == "auto" else self.dtype,
            settings=None if self.settings is None and self.localizer is not None else index.reading_as_made(given),
        )
        return index.localizer(own._load(job)[0], **asked), None

    def _load(self, job: Job) -> tuple[Localizer, Choice | None]:
        from concept_cam.collection.batching import choose_batch_size
        from concept_cam.collection.formats import fastest, shared
        from concept_cam.localizer import Localizer

        found, choice = self.localizer, None
        if found is None and self.dtype == "auto":
            found, choice = fastest(self.model, self.device, self.settings, job.items(), _Count(job))
            agreed = choice.dtype if job.shard is None else shared(choice, Path(job.request.output))
            if agreed != choice.dtype:
                found, choice = None, replace(choice, dtype=agreed)
        if found is None:
            dtype = self.dtype if choice is None else choice.dtype
            found = Localizer.from_pretrained(self.model, device=self.device, dtype=dtype, settings=self.settings)
        elif self.localizer is not None and self.settings is not None:
            found = found.with_settings(**vars(self.settings))
        return found.with_settings(batch_size=self.batch_size or choose_batch_size(found)), choice


def _format_of(index: Index) -> str:
    """The number format in which the texts of an index are read: that of its pictures, where a text tower has it on every machine."""
    made_in = str(index.configuration.get("dtype"))
    return made_in if made_in == "bfloat16" else "float32"


@dataclass(frozen=True)
class Job:
    """A request, checked as far as it can be without a model."""

    request: Request
    collection: Collection
    folder: Path
    shard: Shard | None
    options: Mapping[str, Any]
    calibration: Calibration | None = None
    trust: Trust | None = None
    taken: tuple[Taken | TakenMasks, ...] = ()

    @classmethod
    def open(cls, request: Request) -> Self:
        from concept_cam.collection.inputs.specimens import CONTAINERS, Taken, TakenMasks, open_boxes, open_ignored

        scale, limits = request.px_per_mm, request.limits
        shard = parse_shard(request.shard) if isinstance(request.shard, str) else request.shard
        columns = Columns(request.column, request.box_column, request.mask_column, scale if isinstance(scale, str) else None)
        cls.check(request)
        collection = open_collection(
            request.given,
            layout=request.layout,
            columns=columns,
            root=request.root,
            lines=request.lines,
            skip=[os.path.abspath(request.output)],
        )
        calibration = None
        if request.calibration is not None:
            from concept_cam.collection.limits import read_limits

            calibration = read_limits(request.calibration)
            limits = limits.with_calibration(calibration)
        trust, guarantee = opened(request.trust, request.alpha)
        boxes = open_boxes(os.fspath(request.boxes)) if request.boxes is not None else None
        ignored = open_ignored(os.fspath(request.ignore)) if request.ignore is not None else None
        if collection.layout == "index" and (boxes is not None or ignored is not None):
            raise ConfigurationError("an index holds its specimens and what may not be read: --boxes and --ignore belong to 'index'.")
        boxes = None if boxes is None else boxes.check(collection)
        ignored = None if ignored is None else ignored.check(collection)
        options = {
            "limits": limits,
            "regions": request.regions,
            "px_per_mm": None if isinstance(scale, str) else scale,
            "keep_scores": request.keep_scores,
            "decoding": request.decoding,
            "boxes": boxes,
            "ignored": ignored,
            "rules": None if trust is None else trust.rules,
            "guarantee": guarantee,
        }
        if next(collection.items(), None) is None:
            # A shard may have no picture to do, a collection may not: a run of none could not be continued with pictures.
            raise DataError(
                f"no picture was found in {some_of(request.given, 3)} (read as {collection.layout!r}): check the path. "
                f"Pictures end in {', '.join(sorted(PICTURE_SUFFIXES))}."
            )
        folder = Path(request.output) if shard is None else Path(request.output) / shard.folder
        # What a container holds is known when it was read, and then is told which rows and masks were of no picture in it.
        taken: list[Taken | TakenMasks] = []
        if collection.layout in CONTAINERS:
            taken += [Taken(file) for file in (boxes, None if ignored is None else ignored.boxes) if file is not None]
            taken += [] if ignored is None or ignored.folder is None else [TakenMasks(ignored)]
        return cls(request, collection, folder, shard, options, calibration, trust, tuple(taken))

    @classmethod
    def check(cls, request: Request) -> None:
        """Finds errors in packs before a model is loaded."""
        build_questions(request.packs)

    @property
    def index(self) -> str | None:
        """The index that features come from, where pictures are not encoded."""
        return self.request.given[0] if self.collection.layout == "index" else None

    @property
    def facts_of_input(self) -> dict[str, Any]:
        """Where the pictures come from, for ``run.json``."""
        request = self.request
        names = ("column", "box_column", "mask_column")
        columns = {name: value for name in names if (value := getattr(request, name)) is not None}
        if isinstance(request.px_per_mm, str):
            columns["px_per_mm"] = request.px_per_mm
        return {
            "given": request.given if request.given != ["-"] else "standard input",
            "layout": self.collection.layout,
            "root": self.collection.root,
            "columns": columns,
            "boxes": None if request.boxes is None else os.fspath(request.boxes),
            "ignore": None if request.ignore is None else os.fspath(request.ignore),
        }

    def plan(self, localizer: Localizer) -> Plan:
        """Completes the plan with what only the model knows, and checks that it can read pictures this way."""
        import numpy as np

        from concept_cam import __version__

        backbone, settings = localizer.backbone, localizer.settings
        if self.index is not None and (settings.refine != "none" or settings.look_again):
            raise ConfigurationError(
                "an index keeps features and no pictures, and refining a map or looking again takes the pictures: give the pictures "
                "themselves, or leave --refine and --look-again out."
            )
        if self.calibration is not None:
            self.calibration.check_model(localizer)
        if self.trust is not None:
            self.trust.check(localizer.conditions())
        plan = Plan(
            questions=build_questions(self.request.packs, backbone.unknown_words),
            settings=localizer.settings,
            preprocess=localizer.preprocess,
            identity=Identity(backbone.name, backbone.weights_hash, __version__),
            index=self.index,
            **self.options,
        )
        if self.trust is not None and _nothing_promised(plan):
            warnings.warn(
                f"{os.fspath(self.request.trust or '')} promises no state of what is asked here: the column state_set stays empty. Labels "
                "of states are what 'concept-cam calibrate' fits it to.",
                stacklevel=2,
            )
        localizer.prepare(np.zeros((8, 8, 3), dtype=np.uint8))
        localizer.directions(localizer.phrased(plan.questions.concepts))
        return plan

    def configuration(self, plan: Plan, dtype: str) -> dict[str, Any]:
        """Returns what decides the results of this run; ``dtype`` is the number format that was chosen."""
        facts = self.facts_of_input
        given = facts["given"]
        named = given if isinstance(given, str) else [_normal(text) for text in given]
        # Their sources are the same texts whatever folder they stand in; other layouts' root follows from what is given.
        rooted = facts["layout"] in ("list", "table")
        root = {"root": _absolute(facts["root"])} if rooted else {}
        return {
            **describe(plan),
            "dtype": dtype,
            "input": {"given": named, "layout": facts["layout"], "columns": facts["columns"], **root},
            "boxes": _digest(facts["boxes"]),
            "ignore": _digest(facts["ignore"]),
            "shard": None if self.shard is None else str(self.shard),
        }

    def facts(self, plan: Plan, localizer: Localizer, engine: str, choice: Choice | None = None) -> dict[str, Any]:
        """Returns the further contents of ``run.json``; ``choice`` is how the number format was chosen."""
        return {
            "package_version": plan.identity.package_version,
            "model": plan.identity.model,
            "weights_hash": plan.identity.weights_hash,
            "dtype": localizer.dtype_name,
            "dtype_choice": None if choice is None else choice.to_dict(),
            "device": str(localizer.backbone.device),
            "engine": engine,
            "batch_size": localizer.settings.batch_size,
            "packs": {name: dict(facts) for name, facts in plan.questions.facts.items()},
            "input": self.facts_of_input,
            "limit": self.request.limit,
        }

    def items(self, seen: Callable[[Item], object] | None = None) -> Iterator[Item]:
        """Yields the pictures of this shard, up to the limit.

        Args:
            seen: Called with every picture that is passed, of whatever shard.
        """
        from itertools import islice

        from concept_cam.collection.schema import image_key

        shard = self.shard
        found = self.collection.items() if seen is None else _shown(self.collection.items(), seen)
        mine = found if shard is None else (item for item in found if shard.holds(image_key(item.source)))
        return islice(mine, self.request.limit)

    def take(self, item: Item) -> None:
        """Takes a picture's rows and masks off those that are nobody's yet."""
        for taken in self.taken:
            taken.add(item)

    def tell_untaken(self) -> None:
        """Tells which rows and masks no picture took, once all were passed and the work was done; a limit leaves that open."""
        if self.request.limit is None:
            for taken in self.taken:
                taken.tell(done=True)

    def count(self) -> int | None:
        """Counts the pictures, where that does not mean reading them all; estimated for a shard."""
        total = self.collection.count()
        if total is not None and self.shard is not None:
            total = round(total / self.shard.count)
        limit = self.request.limit
        return total if limit is None else limit if total is None else min(total, limit)


def _shown(items: Iterator[Item], seen: Callable[[Item], object]) -> Iterator[Item]:
    for item in items:
        seen(item)
        yield item


def _nothing_promised(plan: Plan) -> bool:
    """Whether states are asked for, and the guarantee holds for none of their characters."""
    asked = {f"{pack.name}:{character.name}" for pack in plan.questions.packs for character in pack.characters if character.call >= 0}
    return bool(asked) and (plan.guarantee is None or not asked & set(plan.guarantee.states))


def _normal(text: str) -> str:
    """Returns a path as it is written only one way (``photos/`` and ``./photos`` are one folder); a URL as it stands."""
    return text if is_url(text) else os.path.normpath(text)


def _absolute(folder: str | None) -> str | None:
    """Returns the one name of a folder, from wherever it is named; a URL as it stands."""
    return folder if folder is None or is_url(folder) else os.path.abspath(folder)


def _digest(path: str | None) -> str | None:
    """Returns what identifies a side file: the hash of its content; a folder's own name."""
    if path is None or not os.path.isfile(path):
        return path
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# --------------------------------------------------------------------------------------------------------------- dry run


@dataclass(frozen=True)
class Estimate:
    """What a run would take.

    Attributes:
        pictures: Pictures in the input; ``None`` where counting would mean reading them all.
        records: Records that one picture gives, on average of the sample.
        sampled: Pictures that were tried.
        errors: Of these, how many cannot be used.
        rate: Pictures per second.
        bytes_per_picture: Size of the table per picture.
    """

    pictures: int | None
    records: float
    sampled: int
    errors: int
    rate: float
    bytes_per_picture: float

    @property
    def seconds(self) -> float | None:
        """Time for all pictures."""
        return None if self.pictures is None or self.rate <= 0 else self.pictures / self.rate

    @property
    def bytes(self) -> float | None:
        """Size of the table."""
        return None if self.pictures is None else self.pictures * self.bytes_per_picture


def estimate(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    traits: Any = "fish",
    *,
    localizer: Localizer | None = None,
    model: str = "demo",
    device: str = "auto",
    dtype: str = "auto",
    settings: Settings | None = None,
    named: Container[str] = (),
    batch_size: int | None = None,
    sample: int = 16,
    **request: Any,
) -> Estimate:
    """Tries a few pictures and says what the whole run would take; writes nothing.

    The sample is read, annotated and measured in this process, one step after the other: a real run overlaps them and is rather faster.

    Args:
        inputs: As for :func:`annotate`, like all options but ``sample``.
        output: Folder of the run; only looked at.
        traits: Trait packs.
        localizer: A model that is loaded already.
        model: Model name.
        device: Device.
        dtype: Number format.
        settings: How pictures are read and scored.
        named: As for :func:`annotate`.
        batch_size: Pictures per forward pass.
        sample: Pictures to try.
        **request: The other fields of :class:`Request`.
    """
    import io
    import time
    from itertools import islice

    require_arrow()
    import pyarrow.parquet as pq

    from concept_cam.collection.engines.annotator import Annotator

    job = Job.open(make_request(inputs, output, traits, request))
    ready, _ = Wanted(localizer, model, device, dtype, settings, batch_size, named).load(job)
    annotator = Annotator(ready, job.plan(ready))
    tried = list(islice(job.items(), sample))
    annotator(tried[:1])  # the first pass pays for what is loaded once
    start = time.perf_counter()
    answers = annotator(tried)
    seconds = time.perf_counter() - start
    pages = FirstPages()
    _count_pages(pages, answers)
    _tell_pages(pages)
    buffer = io.BytesIO()
    pq.write_table(answers.table, buffer, compression="zstd")
    good = sum(1 for picture in answers.pictures if picture.rows)
    errors = sum(1 for picture in answers.pictures if picture.errors)
    each = max(1, good)
    return Estimate(
        job.count(),
        answers.table.num_rows / each,
        len(tried),
        errors,
        len(tried) / seconds if tried else 0.0,
        buffer.tell() / each,
    )
