"""Makes an index of a collection: every picture through the tower once, its features kept; through any interruption, and in several steps.

It is an annotation that keeps features instead of asking: the same inputs, engines, shards and bookkeeping.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from concept_cam.collection.annotation import PART_PICTURES, Job, Wanted, make_request, require_arrow, run_job
from concept_cam.collection.engines import check_engine
from concept_cam.collection.meaning import said_as
from concept_cam.collection.plan import Identity, Plan
from concept_cam.collection.questions import Questions
from concept_cam.core.concept import Concept
from concept_cam.core.errors import ConfigurationError, DataError
from concept_cam.core.progress import Progress
from concept_cam.core.settings import Settings
from concept_cam.index.codec import Codec
from concept_cam.index.index import READING_SETTINGS, Index

if TYPE_CHECKING:
    from concept_cam.localizer import Localizer

__all__ = ["AXES_SAMPLE", "build_index"]

AXES_SAMPLE = 256
"""Pictures from which the axes of a smaller index are found."""


class _IndexJob(Job):
    """A request for an index."""

    @classmethod
    def check(cls, request: Any) -> None:
        """Nothing is asked, so that there are no questions to check."""

    def plan_with(self, localizer: Localizer, codec: Codec | None) -> Plan:
        """Completes the plan with the model and with how features are kept."""
        from concept_cam import __version__

        backbone = localizer.backbone
        localizer.prepare(np.zeros((8, 8, 3), dtype=np.uint8))
        return Plan(
            questions=Questions((), (), {}),
            settings=localizer.settings,
            preprocess=localizer.preprocess,
            identity=Identity(backbone.name, backbone.weights_hash, __version__),
            codec=codec,
            **self.options,
        )

    def configuration(self, plan: Plan, dtype: str) -> dict[str, Any]:
        """Returns what an index must be of one piece in; more pictures may always be added."""
        codec = plan.codec
        assert codec is not None
        basis = None if codec.basis is None else hashlib.sha256(codec.basis.tobytes()).hexdigest()[:16]
        return {
            "model": plan.identity.model,
            "weights_hash": plan.identity.weights_hash,
            "settings": {name: getattr(plan.settings, name) for name in READING_SETTINGS},
            "dtype": dtype,
            "decoding": plan.decoding,
            "codec": {**codec.description, "basis": basis},
        }


def build_index(
    inputs: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    localizer: Localizer | None = None,
    model: str = "demo",
    device: str = "auto",
    dtype: str = "auto",
    keep: str = "float16",
    pca: int | str | os.PathLike[str] | None = None,
    settings: Settings | None = None,
    resume: bool = False,
    check: bool = False,
    engine: str = "local",
    workers: int | None = None,
    batch_size: int | None = None,
    ray_address: str | None = None,
    part_pictures: int = PART_PICTURES,
    progress: Callable[[Progress], None] | None = None,
    ready: Callable[[Localizer, list[Concept]], None] | None = None,
    say: Callable[[str], None] | None = None,
    **request: Any,
) -> Index:
    """Encodes a collection and keeps its features.

    Call it under ``if __name__ == "__main__":`` in a script, or with ``workers=0``: worker processes import the script that started them.

    Args:
        inputs: As for :func:`concept_cam.annotate`.
        output: Folder of the index.
        localizer: A model that is loaded already; else ``model``, ``device`` and ``dtype`` say which.
        model: Model name.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` ...
        dtype: Number format of the towers, or ``"auto"``.
        keep: Number format of the kept features, a name of :data:`concept_cam.index.codec.INDEX_DTYPES`.
        pca: Keep so many dimensions, found from the first pictures; or another index, whose axes are taken.
        settings: How pictures are read.
        resume: Continue the index that is there, with the same pictures or with further ones; pictures that it holds are not encoded again.
        check: With ``resume``, read every byte of what is there first; parts that are not as they were written are set aside, and their
            pictures are encoded again.
        engine: A name of :data:`concept_cam.collection.engines.ENGINES`.
        workers: Worker processes; 0 for none.
        batch_size: Pictures per forward pass.
        ray_address: A Ray cluster that runs, for the engine ``ray``; ``None`` to start one here.
        part_pictures: Pictures of one part.
        progress: Called after every batch.
        ready: Called once the model is loaded.
        say: Called with a line about the number format that was chosen, and with one about parts that are damaged.
        **request: ``layout``, ``column``, ``root``, ``boxes``, ``ignore``, ``shard``, ``limit``, ``decoding`` ... as for
            :func:`concept_cam.annotate`.

    Raises:
        ConceptCamError: An option or the input cannot be used; single pictures that cannot be used are listed in ``errors.csv`` instead.
        Interrupted: Ctrl-C or SIGTERM; everything finished is written, continue with ``resume=True``.
    """
    require_arrow()
    check_engine(engine, ray_address)
    job = _IndexJob.open(make_request(inputs, output, (), request))
    if job.collection.layout == "index":
        raise ConfigurationError("the input is an index already: give pictures. Shards of an index need not be joined: open their folder.")
    from concept_cam.collection.engines.annotator import Options
    from concept_cam.collection.index_writer import IndexWriter, check_index_folder
    from concept_cam.index.storage import INFO_FILE, read_index_info

    check_index_folder(job.folder, resume)
    wanted = Wanted(localizer, model, device, dtype, settings, batch_size)
    if resume and (job.folder / INFO_FILE).is_file():
        wanted = wanted.as_begun({"dtype": read_index_info(job.folder)["configuration"].get("dtype")})
    loaded, choice = wanted.load(job)
    if choice is not None and say is not None:
        say(str(choice))
    begun = resume and (job.folder / INFO_FILE).is_file()
    if (earlier := Index.open(job.folder) if begun else _another_shard(job)) is not None:
        loaded = _said_as_before(earlier, loaded)
    codec = _codec(job, loaded, keep, pca, resume)
    plan = job.plan_with(loaded, codec)
    if ready is not None:
        ready(loaded, [])
    writer = IndexWriter(
        job.folder,
        job.configuration(plan, loaded.dtype_name),
        job.facts(plan, loaded, engine, choice),
        resume=resume,
        part_pictures=part_pictures,
        check=check,
    )
    if writer.set_aside and say is not None:
        say(f"damaged parts were set aside, their pictures are encoded again: {', '.join(str(part) for part in writer.set_aside)}")
    try:
        codec.save(job.folder)
        run_job(job, plan, loaded, writer, engine, Options(workers, ray_address), progress)
    finally:
        writer.release()
    return Index.open(job.folder)


def _another_shard(job: Job) -> Index | None:
    """Returns another shard of the index, so that this one says the same in the same words; ``None`` where it is the first."""
    from concept_cam.index.storage import INFO_FILE

    for noted in sorted(Path(job.request.output).glob(f"shard-*/{INFO_FILE}")) if job.shard is not None else ():
        with suppress(DataError):
            return Index.open(noted.parent)
    return None


def _said_as_before(index: Index, localizer: Localizer) -> Localizer:
    """Returns a localizer whose settings read as those of the index that is continued, where they mean the same: what the model does of
    itself may be named, or not.
    """
    if index.weights_hash != localizer.backbone.weights_hash:
        return localizer
    return said_as(localizer, {name: getattr(index.settings, name) for name in READING_SETTINGS})


def _axes_of(index: Index, localizer: Localizer) -> Codec:
    """Returns the axes of another index, of the same model: those of another one leave out what they please, in whatever width they fit.

    Raises:
        ConfigurationError: It has none, or they are another model's.
    """
    if index.weights_hash != localizer.backbone.weights_hash:
        raise ConfigurationError(
            f"the axes of {str(index.path)!r} are those of {index.model!r} (weights {index.weights_hash}), this model is "
            f"{localizer.backbone.name!r} ({localizer.backbone.weights_hash}): take them from an index of the same model, or give a number."
        )
    if index.codec.basis is None:
        raise ConfigurationError(
            f"{str(index.path)!r} has no axes to take, for it keeps all dimensions: give --pca a number, or an index made with one."
        )
    return index.codec


def _codec(job: _IndexJob, localizer: Localizer, keep: str, pca: int | str | os.PathLike[str] | None, resume: bool) -> Codec:
    """Returns how features are kept: as the index that is continued does, with another's axes, or with axes of its own."""
    if pca is None:
        return Codec(keep)
    if not isinstance(pca, int):
        return replace(_axes_of(Index.open(pca), localizer), dtype=keep)
    if resume and (job.folder / "index.json").is_file():
        found = Index.open(job.folder).codec
        if found.basis is not None and len(found.basis) == pca:
            return replace(found, dtype=keep)
    if job.shard is not None:
        raise ConfigurationError(
            "shards must share their axes: index a sample first, then give its index to all of them, for example "
            f"concept-cam index photos/ --limit {AXES_SAMPLE} --pca {pca} -o sample.index, and --pca sample.index."
        )
    from concept_cam.collection.engines.annotator import Annotator
    from concept_cam.collection.reading import load_item

    plan = job.plan_with(localizer, Codec("float16"))
    annotator = Annotator(localizer, plan)
    patches: list[np.ndarray] = []
    items = iter(islice(job.items(), AXES_SAMPLE))
    while batch := list(islice(items, localizer.settings.batch_size)):
        for _, kept in annotator.score([load_item(item, plan) for item in batch]):
            patches += [Codec("float16").decode(entry.codes) for entry in kept]
    if not patches:
        raise ConfigurationError("not one of the first pictures can be used, so that --pca has nothing to find its axes from.")
    return Codec.fit(np.concatenate(patches), pca, keep)
