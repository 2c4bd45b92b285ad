"""``concept-cam fit-head`` and ``fit-attention``: what is trained on top of a frozen model."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from concept_cam.commands.console import PathName, ProgressDisplay, note
from concept_cam.commands.options import (
    WITHOUT_TEXT,
    Within,
    build_localizer,
    chosen_settings,
    input_options,
    model_options,
    read_classes,
    resolve,
)
from concept_cam.core.errors import ConfigurationError
from concept_cam.core.files import check_file
from concept_cam.core.names import DEFAULT_MODEL
from concept_cam.core.progress import Tracker
from concept_cam.core.settings import RESIZE_POLICIES

if TYPE_CHECKING:
    from concept_cam.backbones.protocol import Backbone
    from concept_cam.core.settings import Settings
    from concept_cam.methods.heads import ClassifierHead

_output = click.option("--output", "-o", required=True, type=PathName(dir_okay=False), help="File to write, FILE.safetensors.")
_overwrite = click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
_resize = click.option(
    "--resize", type=click.Choice([name for name in RESIZE_POLICIES if name not in ("tile", "aspect")]),
    help="How the picture meets the model's input.  [default: pad]",
)  # fmt: skip
_size = click.option("--size", type=int, help="Side in pixels at which pictures are read; explainers: the model's native one.")
_seed = click.option("--seed", type=int, default=0, show_default=True, help="Seed of what is drawn at random.")


@click.command(short_help="Train a linear classifier head on a folder of class folders.")
@click.argument("folder", type=PathName(file_okay=False))
@_output
@model_options
@input_options
@_resize
@_size
@click.option(
    "--feature-norm",
    type=click.Choice(["none", "l2"]),
    default="none",
    show_default=True,
    help="Form of the embedding it reads.",
)
@click.option("--l2", type=Within(min=0), default=1e-3, show_default=True, help="Strength of the penalty on large weights.")
@click.option(
    "--held-out",
    type=Within(0, 0.9),
    default=0.2,
    show_default=True,
    help="Share of pictures kept for testing.",
)
@_seed
@_overwrite
def fit_head(
    folder: str,
    output: str,
    feature_norm: str,
    l2: float,
    held_out: float,
    seed: int,
    overwrite: bool,
    **options: Any,
) -> None:
    """Trains a linear classifier on a frozen model's image embedding; FOLDER holds one folder of pictures per class.

    The head is what Finer-CAM's original form explains. --model takes towers without words too, such as timm:NAME,CHECKPOINT and
    dinov2:facebook/dinov2-base (or a folder). The accuracy is measured on pictures kept aside; the head that is written is trained on
    all of them.

    \b
    Examples:
      concept-cam fit-head photos/ -o head.safetensors
      concept-cam fit-head photos/ --model dinov2:facebook/dinov2-base -o head.safetensors
      concept-cam fit-head dogs/ --model timm:resnet50.a1_in1k,resnet50.safetensors -o dogs.safetensors
      concept-cam locate dog.jpg --model timm:resnet50.a1_in1k,resnet50.safetensors --head dogs.safetensors -o out/
    """
    _check_output(output, overwrite)
    from concept_cam.methods.heads import class_folders, image_embeddings
    from concept_cam.methods.heads import fit_head as fit
    from concept_cam.methods.origin import Origin

    files = class_folders(folder)
    values = resolve(options)
    backbone, settings = load_tower(values)
    note(f"{len(files)} pictures of {len({name for _, name in files})} classes")
    embeddings = image_embeddings(backbone, [path for path, _ in files], settings)
    labels = [name for _, name in files]
    kept = _split(labels, held_out, seed)
    if kept:
        train = [index for index in range(len(labels)) if index not in kept]
        trial = fit(embeddings[train], [labels[index] for index in train], feature_norm=feature_norm, l2=l2)
        order = sorted(kept)
        found = trial.logits(embeddings[order]).argmax(dim=1).tolist()
        right = sum(trial.classes[guess] == labels[index] for guess, index in zip(found, order))
        click.echo(f"accuracy on {len(order)} pictures kept aside: {right / len(order):.3f}")
    elif held_out > 0:
        note(f"no accuracy: {held_out:g} of each class is less than one picture; give more pictures of a class or a larger --held-out.")
    head = fit(
        embeddings, labels, feature_norm=feature_norm, l2=l2, weights_hash=backbone.weights_hash, origin=Origin.of(backbone, settings)
    )
    click.echo(str(head.save(output, overwrite=overwrite)))


def _split(labels: list[str], share: float, seed: int) -> set[int]:
    """Chooses the pictures kept aside, the same share of every class, leaving each class at least one."""
    generator = random.Random(seed)
    kept: set[int] = set()
    for name in sorted(set(labels)):
        members = [index for index, label in enumerate(labels) if label == name]
        kept.update(generator.sample(members, min(round(share * len(members)), len(members) - 1)))
    return kept


@click.command(short_help="Train a learned single-pass explainer (L-CAM).")
@click.argument("source", type=PathName())
@_output
@model_options
@input_options
@_resize
@_size
@click.option(
    "--kind",
    type=click.Choice(["fm", "img"]),
    default="fm",
    show_default=True,
    help="Mask the feature map, or the picture.",
)
@click.option(
    "--head",
    type=PathName(dir_okay=False),
    help="Train for this classifier head instead of words.  [default with --model timm:NAME: its own last layer]",
)
@click.option(
    "--classes",
    type=PathName(dir_okay=False),
    metavar="FILE",
    help="Classifiers: names of the classes, one per line, where the file or the network holds none.",
)
@click.option(
    "--start",
    type=click.Choice(["random", "gradient"]),
    default="random",
    show_default=True,
    help="Begin with random weights (the paper's), or with Grad-CAM's: better maps from few pictures.",
)
@click.option("--learning-rate", type=Within(min=0, min_open=True), help="[default: 3e-3, with --start gradient 3e-4]")
@click.option("--area", type=Within(min=0), help="Factor of the map's size in the loss.  [default: 2, with --start gradient 0.5]")
@click.option("--rows", is_flag=True, help="Classifiers: weights from each class's row of the head, for classes without pictures too.")
@click.option(
    "--windows", type=click.IntRange(min=0), default=0, show_default=True, help="Classifiers: windows cut of each picture; 0: the pictures."
)
@click.option(
    "--pictures",
    type=click.IntRange(min=1),
    default=400,
    show_default=True,
    help="Pictures of the fish world.",
)
@click.option("--steps", type=click.IntRange(min=1), help="Optimisation steps.  [default: 300 for fm, 200 for img]")
@click.option("--train-batch", type=click.IntRange(min=1), help="Pictures per step.  [default: 16]")
@_seed
@_overwrite
def fit_attention(
    source: str,
    output: str,
    kind: str,
    head: str | None,
    classes: str | None,
    start: str,
    learning_rate: float | None,
    area: float | None,
    rows: bool,
    windows: int,
    pictures: int,
    steps: int | None,
    train_batch: int | None,
    seed: int,
    overwrite: bool,
    **options: Any,
) -> None:
    """Trains an explainer that answers in one forward pass: L-CAM-Fm or L-CAM-Img on a frozen model.

    SOURCE is a folder with one folder of pictures per class (the folder names are the phrases, each against the others), or "synthetic"
    for the built-in fish world. Use the file as --method lcam:FILE.

    \b
    Examples:
      concept-cam fit-attention synthetic -o lcam.safetensors
      concept-cam locate fish.png -t "a forked tail fin" -c "a rounded tail fin" --method lcam:lcam.safetensors -o out/
      concept-cam fit-attention photos/ --head head.safetensors --kind img -o lcam.safetensors
      concept-cam fit-attention photos/ --model timm:resnet50.a1_in1k --rows --windows 4 --start gradient -o lcam.safetensors
    """
    _check_output(output, overwrite)
    from concept_cam.methods.lcam_training import LcamTraining

    defaults = {"fm": (300, 16), "img": (200, 16)}[kind]
    training = LcamTraining(
        kind,
        steps=steps or defaults[0],
        batch_size=train_batch or defaults[1],
        learning_rate=learning_rate,
        area=area,
        start=start,
        seed=seed,
    )
    values = resolve(options)
    if head is not None or str(values.get("model") or "").startswith(WITHOUT_TEXT):
        names = None if classes is None else read_classes(classes)
        explainer = _fit_classes(source, head, names, values, training, rows, windows)
    elif rows or windows or classes is not None:
        raise ConfigurationError("--rows, --windows and --classes belong to a classifier: give --head FILE, or --model timm:NAME.")
    else:
        explainer = _fit_concepts(source, pictures, values, training)
    click.echo(str(explainer.save(output, overwrite=overwrite)))


def _fit_classes(
    source: str, head: str | None, names: list[str] | None, values: dict[str, Any], training: Any, rows: bool, windows: int
) -> Any:
    from concept_cam.methods.heads import ClassifierHead, FinerCam, class_folders
    from concept_cam.methods.lcam_training import random_windows, train_on_classes
    from concept_cam.pictures.preprocessing import adapted
    from concept_cam.pictures.reading import read_image
    from concept_cam.pictures.resizing import prepare

    if source == "synthetic":
        raise ConfigurationError("a classifier (--head, --model timm:NAME) needs a folder of class folders; 'synthetic' asks in words.")
    files = class_folders(source)
    backbone, settings = load_tower(values)
    classifier = ClassifierHead.of(backbone) if head is None else ClassifierHead.load(head, names)
    if head is None and names is not None:
        classifier = classifier.named(names)
    for name in sorted({name for _, name in files}):
        classifier.index(name)  # Names a folder that is no class before anything is trained.
    settings = read_as_trained(classifier, backbone, settings, values)
    # Checks that they fit, with the size that was asked for: training at the native one is our choice, and no reason to warn.
    FinerCam(backbone, classifier, settings)
    settings = settings.with_values(size=_training_size(backbone, settings))
    expected = adapted(backbone.preprocess, settings)
    prepared, labels = [], []
    for number, (path, name) in enumerate(files):
        picture = read_image(path)
        shown = [read_image(window) for window in random_windows(picture.pixels, windows, training.seed + number)] or [picture]
        prepared += [prepare(item, expected, settings.resize, settings.size) for item in shown]
        labels += [name] * len(shown)
    return train_on_classes(backbone, classifier, prepared, labels, training, _progress(training.steps), rows=rows, settings=settings)


def _fit_concepts(source: str, pictures: int, values: dict[str, Any], training: Any) -> Any:
    from concept_cam.core.concept import Concept
    from concept_cam.evaluation.fish_examples import fish_examples
    from concept_cam.methods.heads import class_folders
    from concept_cam.methods.lcam_training import TrainingExample, train_on_concepts

    if source == "synthetic":
        examples = fish_examples(pictures, seed=training.seed + 1)
    else:
        files = class_folders(source)
        names = sorted({name for _, name in files})
        phrases = {name: name.replace("_", " ") for name in names}
        concepts = {name: Concept((phrases[name],), tuple((phrases[other],) for other in names if other != name)) for name in names}
        examples = [TrainingExample(path, concepts[name]) for path, name in files]
    note(f"{len(examples)} examples")
    localizer = build_localizer(values)
    localizer = localizer.with_settings(size=_training_size(localizer.backbone, localizer.settings))
    return train_on_concepts(localizer, examples, training, _progress(training.steps))


def _training_size(backbone: Backbone, settings: Settings) -> int:
    """The side at which an explainer is trained: the model's native one, for maps are often read at a finer and much slower size."""
    return settings.size or min(backbone.preprocess.size)


def _progress(steps: int) -> Callable[[int, float], None]:
    display, tracker = ProgressDisplay(), Tracker(lambda: steps, unit="steps")
    click.get_current_context().call_on_close(display.close)

    def report(step: int, loss: float) -> None:
        progress = tracker.add(1, 0, f"loss {loss:.3f}")
        display(progress)
        if progress.done == steps:
            note(str(progress))

    return report


def load_tower(values: dict[str, Any]) -> tuple[Backbone, Settings]:
    """Loads the model that the merged options name, one without text too, and the settings."""
    from concept_cam import backbones

    settings = chosen_settings(values)
    return backbones.load(
        values.get("model") or DEFAULT_MODEL, device=values.get("device") or "auto", dtype=values.get("dtype") or "float32"
    ), settings


def read_as_trained(head: ClassifierHead, backbone: Backbone, settings: Settings, values: dict[str, Any]) -> Settings:
    """Returns the settings with pictures read as in the head's training, but for what the options say, and notes what that changes."""
    from concept_cam.methods.origin import as_option

    trained = head.origin.settings_for(backbone, settings, said=tuple(values))
    before, now = vars(settings), vars(trained)
    if changed := [f"--{name.replace('_', '-')} {as_option(now[name])}" for name in now if now[name] != before[name]]:
        note(f"pictures are read as in the training of the classifier head: {' '.join(changed)}")
    return trained


def _check_output(output: str, overwrite: bool) -> None:
    """Finds an unusable output before anything is trained."""
    if Path(output).suffix != ".safetensors":
        raise ConfigurationError(f"--output must end in .safetensors, received {output!r}.")
    check_file(output, overwrite=overwrite)
