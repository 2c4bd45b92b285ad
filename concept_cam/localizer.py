"""The one file that knows the whole flow: picture and words in, localisations out."""

from __future__ import annotations

import os
import pickle
import reprlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast, overload
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from concept_cam import backbones, prompts
from concept_cam.backbones.portable import Packed
from concept_cam.backbones.protocol import Backbone
from concept_cam.backbones.text_memory import TextMemory
from concept_cam.backbones.views import VIEWS
from concept_cam.core.cache import cache_folder
from concept_cam.core.concept import Concept
from concept_cam.core.directions import DirectionSet, FixedDirections, coefficients, ensemble, nearest_classes
from concept_cam.core.errors import ConfigurationError, ImageError, PromptError
from concept_cam.core.features import PatchFeatures
from concept_cam.core.grouping import batches_of_one_size
from concept_cam.core.names import choose, normalise_text, plain_number, require_text, some_of, whole_number
from concept_cam.core.placed_maps import PartMaps, place_maps
from concept_cam.core.quiet import quiet
from concept_cam.core.results import Localization, Localizations, Provenance
from concept_cam.core.scoring import image_scores, ledger, probabilities, score_patches
from concept_cam.core.settings import INPUT_SETTINGS, OWN_INPUT, PREPROCESS_SETTINGS, Settings, given_settings, said_once
from concept_cam.methods import explain
from concept_cam.pictures.given import pictures_in, pixels_of, several_pictures, spoken
from concept_cam.pictures.preprocessing import adapted, input_in_use, own_input
from concept_cam.pictures.reading import ImageSource, Picture, read_image
from concept_cam.pictures.resizing import Prepared, merge_windows, prepare
from concept_cam.refine import Answers, find_refiners, load_refiner, refine
from concept_cam.refine.look import SecondLook, coarser, look_again
from concept_cam.trust.certificate import Asked, Certifier, PictureProbes
from concept_cam.trust.certified import Domain
from concept_cam.trust.readings import Reading, readings_of
from concept_cam.trust.rules import Rules, beside, shipped

if TYPE_CHECKING:
    from concept_cam.refine.scene import Scene

__all__ = ["Localizer"]

Phrases = str | Sequence[str]

_REMEMBERED = 4
"""Sets of concepts whose directions are kept: batch after batch is asked the same."""


class Localizer:
    """Locates concepts, named in words, in pictures.

    A localizer holds a frozen model and settings. Its methods change neither and may run in several threads at once. It can be pickled,
    model included: processes that are to share the work make or get one each, when they start.

    Args:
        backbone: An image-text model.
        settings: How pictures are read and scored.
        rules: When a map counts as clear; by default those that came with the model, if any did. Of rules that were fitted under other
            settings than these only what needs no fit is used. Kinds of questions without a fit in them stay with the model's own.

    Attributes:
        preprocess: What the model's input must look like: the checkpoint's own, or what the settings say in its place.

    Raises:
        ConfigurationError: The weights leave open how pictures are prepared, and the settings do not say it; or model, settings or rules
            are something else.
    """

    def __init__(self, backbone: Backbone, settings: Settings | None = None, rules: Rules | None = None) -> None:
        if isinstance(backbone, str | os.PathLike):
            raise ConfigurationError(
                f"a Localizer is made of a model that is loaded, received {backbone!r} ({type(backbone).__name__}): use "
                "Localizer.from_pretrained(name)."
            )
        _require_rules(rules)
        self.backbone = backbone
        self.settings = given_settings(settings)
        self.rules = rules or shipped(backbone.weights_hash) or Rules()
        self.preprocess = adapted(backbone.preprocess, self.settings)
        self._texts = TextMemory(backbone, cache_folder())
        self._asked: tuple[tuple[tuple[Concept, ...], DirectionSet], ...] = ()
        self._fixed = FixedDirections()
        find_refiners(self.settings.refine)
        self._refiners: dict[str, Callable[[Tensor, Scene], Tensor] | None] = {}
        # A picture's own share of its certificates, for as long as somebody holds its features.
        self._probed: WeakKeyDictionary[PatchFeatures, PictureProbes] = WeakKeyDictionary()
        self._certified: tuple[tuple[Mapping[str, Any], Asked], ...] = ()

    def __repr__(self) -> str:
        """The model, and the settings that are not the defaults."""
        plain = Settings()
        changed = [
            f"{item.name}={value!r}"
            for item in fields(Settings)
            if (value := getattr(self.settings, item.name)) != getattr(plain, item.name)
        ]
        settings = f"; {', '.join(changed)}" if changed else ""
        return (
            f"<Localizer of {self.backbone.name!r} (weights {self.backbone.weights_hash}) on {self.backbone.device}, "
            f"{self.dtype_name}{settings}>"
        )

    def __reduce__(self) -> tuple[Callable[..., Localizer], tuple[object, ...]]:
        """What goes into a pickle: model, settings and rules. What was kept of texts and pictures stays here.

        A model of which a part cannot be pickled is refused here, and not sent by its name: where that names nothing, a pool would start
        one process after another that ends at once, and never answer.
        """
        return _unpickled, (type(self), Packed(pickle.dumps(self.backbone)), self.settings, self.rules)

    def __copy__(self) -> Localizer:
        """A copy within the process, of the same model, which goes through no pickle."""
        return self.with_settings()

    @classmethod
    def from_pretrained(
        cls,
        name: str = "demo",
        *,
        device: str = "auto",
        dtype: str = "float32",
        settings: Settings | None = None,
        rules: Rules | None = None,
        **values: Any,
    ) -> Localizer:
        """Loads a model by name.

        Args:
            name: ``"demo"`` (ships with the package), ``"ViT-B-16/openai"``, ``"hf-hub:imageomics/bioclip-2"``, ``"local-dir:PATH"``,
                ``"transformers:ID"`` ...; see ``concept-cam models``.
            device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``.
            dtype: ``"float32"``, ``"bfloat16"`` or ``"float16"`` for the towers, or ``"int8"`` for vision transformers on a CPU (extra
                ``[int8]``); results are always float32.
            settings: How pictures are read and scored.
            rules: When a map counts as clear, such as ``Trust.read("trust.json").rules``.
            **values: Single fields of :class:`~concept_cam.core.settings.Settings`, such as ``attention="value"``.

        Raises:
            ModelError: The model is unknown, cannot be loaded or cannot be localised; the message says what to do.
            UnsupportedModelError: The model has no text tower, such as ``timm:NAME``.
            ConfigurationError: An unknown setting, or settings or rules that are something else.
        """
        _require_rules(rules)  # Before the model is loaded, which can take minutes.
        chosen = given_settings(settings).with_values(**values)
        backbone = backbones.load(name, device=device, dtype=dtype)
        if not backbone.context_length:
            backbone.encode_text(["a picture"])  # Raises, and says what such a tower is good for.
        return cls(backbone, chosen, rules)

    def with_settings(self, **values: Any) -> Localizer:
        """Returns a localizer of the same model with other settings; text embeddings are kept."""
        return self.under(self.settings.with_values(**values))

    def under(self, settings: Settings) -> Localizer:
        """Returns a localizer of the same model under other settings, all of them: what they leave to the model is the model's again, where
        :meth:`with_settings` leaves it as it was; text embeddings are kept.
        """
        other = Localizer(self.backbone, settings, self.rules)
        other._texts, other._asked, other._fixed, other._refiners = self._texts, self._asked, self._fixed, self._refiners
        if other.settings.feature_norm == self.settings.feature_norm:
            other._probed = self._probed
        return other

    def with_rules(self, rules: Rules) -> Localizer:
        """Returns a localizer of the same model and settings with other rules of trust.

        Raises:
            ConfigurationError: Something else than rules.
        """
        if not isinstance(rules, Rules):
            raise _no_rules(rules)
        other = self.with_settings()
        other.rules = rules
        return other

    # ------------------------------------------------------------------------------------------------------- text

    def embed_texts(self, groups: Sequence[Sequence[str]]) -> Tensor:
        """Embeds phrase groups: float32 [G, D] on the CPU, unit length, ``t = norm(mean_k norm(E(prompt_k)))``.

        Each distinct prompt goes through the text tower once in the life of the localizer.

        Raises:
            PromptError: An empty prompt, or one longer than the model's context.
        """
        if not groups:
            return torch.zeros(0, self.backbone.embed_dim, dtype=torch.float32)
        return ensemble(self._texts.embed([prompt for group in groups for prompt in group]), [len(group) for group in groups])

    def phrased(self, concepts: Concept | Iterable[Concept]) -> tuple[Concept, ...]:
        """Returns the concepts with the templates of the settings, where there are any, in place of their own.

        Raises:
            PromptError: Something else than concepts, such as words.
        """
        templates = self.settings.templates
        return tuple(replace(concept, templates=templates) if templates else concept for concept in _concepts(concepts))

    def directions(self, concepts: Concept | Iterable[Concept]) -> DirectionSet:
        """Embeds the unique texts of concepts as they stand, float32 on the backbone's device.

        Raises:
            PromptError: No concept, something else than concepts, or a text that the model cannot embed.
        """
        asked = _concepts(concepts)
        if not asked:
            raise PromptError("no concept was given: expected at least one target such as 'a forked tail fin'.")
        for known, texts in self._asked:
            if known == asked:
                return texts
        with quiet(graph=False):  # What is kept must serve gradient methods as well, whoever asked first.
            texts = self._directions(asked)
        # Replaced as a whole, never changed: threads see the old questions or the new.
        self._asked = ((asked, texts), *self._asked[: _REMEMBERED - 1])
        return texts

    def _directions(self, concepts: tuple[Concept, ...]) -> DirectionSet:
        index: dict[tuple[str, ...], int] = {}

        def row(prompts: tuple[str, ...]) -> int:
            return index.setdefault(prompts, len(index))

        target = [row(concept.target_prompts) for concept in concepts]
        contrasts = [[row(prompts) for prompts in concept.contrast_prompts] for concept in concepts]
        widest = max(map(len, contrasts))
        texts = self.embed_texts(list(index))

        def first(counts: list[int]) -> Tensor:
            """Bool [C, R], true in the first so many columns of each row."""
            return torch.arange(widest, device=self.backbone.device) < torch.tensor(counts, device=self.backbone.device)[:, None]

        return DirectionSet(
            texts=texts.to(self.backbone.device),
            target=torch.tensor(target, device=self.backbone.device),
            contrasts=torch.tensor(
                [rows + [0] * (widest - len(rows)) for rows in contrasts], dtype=torch.long, device=self.backbone.device
            ).reshape(len(concepts), widest),
            present=first([len(concept.contrasts) for concept in concepts]),
            rivals=first([len(concept.rivals) for concept in concepts]),
            names=tuple(concept.name for concept in concepts),
        )

    def unknown_words(self, concepts: Concept | Iterable[Concept]) -> tuple[str, ...]:
        """Returns the words that lie far from what the model was trained on, where the model can tell.

        Raises:
            PromptError: Something else than concepts, such as words, or a text with what is no character.
        """
        prompts = dict.fromkeys(
            prompt for concept in _concepts(concepts) for group in (concept.target, *concept.contrasts) for prompt in group
        )
        for prompt in prompts:
            require_text(prompt)
        return tuple(dict.fromkeys(word for prompt in prompts for word in self.backbone.unknown_words(prompt)))

    # ----------------------------------------------------------------------------------------------------- images

    @overload
    def encode(self, images: str) -> PatchFeatures: ...  # type: ignore[overload-overlap]  # a text is a sequence of texts as well
    @overload
    def encode(self, images: Sequence[ImageSource]) -> list[PatchFeatures]: ...  # type: ignore[overload-overlap]
    @overload
    def encode(self, images: ImageSource) -> PatchFeatures: ...
    def encode(self, images: ImageSource | Sequence[ImageSource]) -> PatchFeatures | list[PatchFeatures]:
        """Runs the image tower: costly, and needed once per picture.

        Args:
            images: One picture or a list or tuple of them (anything that :func:`concept_cam.pictures.reading.read_image` takes), or a
                batch: a tensor [B, C, H, W] or [B, H, W, C], or an array [B, H, W, C].

        Returns:
            Features of the picture, or a list of them in the same order.

        Raises:
            ImageError: A picture cannot be read or the model returns NaN for it.
        """
        several = several_pictures(images)
        if several is not None:
            return self.encode_prepared(*self._prepare(several))
        return self.encode_prepared(*self._prepare([cast(ImageSource, images)]))[0]

    def prepare(self, image: ImageSource) -> Prepared:
        """Makes the model's input from one picture with the localizer's resize policy."""
        return prepare(self.read(image), self.preprocess, self.settings.resize, self.settings.size)

    def read(self, image: ImageSource) -> Picture:
        """Reads one picture."""
        return read_image(image, max_pixels=self.settings.max_pixels)

    def _prepare(self, images: Iterable[ImageSource]) -> tuple[list[Prepared], list[str | None]]:
        pictures = [self.read(image) for image in images]
        prepared = [prepare(picture, self.preprocess, self.settings.resize, self.settings.size) for picture in pictures]
        return prepared, [picture.source for picture in pictures]

    @quiet(graph=False)
    def encode_prepared(
        self, prepared: Sequence[Prepared], sources: Sequence[str | None] | None = None, *, steady: bool = False
    ) -> list[PatchFeatures]:
        """Encodes model inputs made earlier (for example in worker processes); inputs of one size share forward passes.

        Args:
            prepared: The inputs.
            sources: Where they come from, for messages.
            steady: On a CPU, give each picture a pass of its own, so that its last digits (in bfloat16, its third digit) do not depend on
                which others are encoded beside it. It costs nothing at the sizes that models are read at, and twice the time at 64 pixels.
        """
        step = 1 if steady and self.backbone.device.type == "cpu" else self.settings.batch_size
        names = list(sources) if sources is not None else [None] * len(prepared)
        features: list[PatchFeatures | None] = [None] * len(prepared)
        whole = [position for position, item in enumerate(prepared) if not item.windows]
        for position, item in enumerate(prepared):
            if item.windows:
                features[position] = self._encode_tiles(item, names[position], step)
        for batch in batches_of_one_size([tuple(prepared[position].pixels.shape) for position in whole], step):
            positions = [whole[number] for number in batch]
            pixels = torch.stack([prepared[position].pixels for position in positions])
            valid = np.stack([prepared[position].valid for position in positions])
            patches, image = self._forward(pixels, valid)
            for row, position in enumerate(positions):
                features[position] = self._features(patches[row], image[row], prepared[position], names[position])
        return [item for item in features if item is not None]

    def _forward(self, pixels: Tensor, valid: np.ndarray) -> tuple[Tensor, Tensor]:
        mask = None if valid.all() else torch.from_numpy(valid).to(self.backbone.device)
        pixels = pixels.to(self.backbone.device, self.backbone.dtype)
        look = choose(self.views, VIEWS, "views")
        width = self.backbone.grid_size((pixels.shape[-2], pixels.shape[-1]))[1] * self.backbone.preprocess.stride[1]
        output = look(lambda seen, cells: self.backbone.encode_patches(seen, self.settings.attention, cells), pixels, mask, width)
        return output.patches.float(), output.image.float()

    def _encode_tiles(self, item: Prepared, source: str | None, step: int) -> PatchFeatures:
        """Windows are encoded alone and their features averaged; the image embedding is the mean of the windows' unit embeddings."""
        patches, images = [], []
        for start in range(0, len(item.batch), step):
            window = slice(start, start + step)
            part, image = self._forward(item.batch[window], item.batch_valid[window])
            patches.append(part)
            images.append(image)
        merged = merge_windows(torch.cat(patches), item.windows, item.geometry.grid)
        image = torch.nn.functional.normalize(torch.cat(images), dim=-1).mean(dim=0)
        return self._features(merged, image, item, source)

    def _features(self, patches: Tensor, image: Tensor, item: Prepared, source: str | None) -> PatchFeatures:
        self._require_finite(patches.sum() + image.sum(), source)
        attention = self.settings.attention
        return PatchFeatures(
            patches=patches,
            image=image,
            geometry=item.geometry,
            model=self.backbone.name,
            weights_hash=self.backbone.weights_hash,
            attention=self.backbone.default_attention if attention == "auto" else attention,
            source=source,
            views=self.views,
            reading={**self.settings.reading(), OWN_INPUT: own_input(self.backbone.preprocess)},
        )

    def _require_finite(self, total: Tensor, source: str | None) -> None:
        # A sum is finite only if every part of it is, and is found faster than the parts are tested.
        if not bool(torch.isfinite(total)):
            raise ImageError(
                f"the model returned NaN or infinity for {source or 'the picture'}: check the pixels, the weights "
                f"(concept-cam models check), or use --dtype float32 (now {self.dtype_name})."
            )

    # ---------------------------------------------------------------------------------------------------- scoring

    @overload
    def score(
        self,
        features: Sequence[PatchFeatures],
        concepts: Concept | Sequence[Concept],
        pictures: Sequence[Picture | np.ndarray] | None = None,
    ) -> list[Localizations]: ...
    @overload
    def score(
        self, features: PatchFeatures, concepts: Concept | Sequence[Concept], pictures: Picture | np.ndarray | None = None
    ) -> Localizations: ...
    def score(
        self,
        features: PatchFeatures | Sequence[PatchFeatures],
        concepts: Concept | Sequence[Concept],
        pictures: Picture | np.ndarray | Sequence[Picture | np.ndarray] | None = None,
    ) -> Localizations | list[Localizations]:
        """Queries encoded pictures with concepts: cheap, as often as needed.

        All pictures of one grid and all concepts are scored in one matrix product.

        Args:
            features: One picture's features, or several pictures'.
            concepts: One or more concepts.
            pictures: The picture or pictures themselves, uint8 [H, W, 3] upright, one for each of the features; needed where the settings
                refine maps or look again.

        Returns:
            Per picture the answers in the order of the concepts.

        Raises:
            PromptError: A text that the model cannot embed, a direction that vanishes, or words in place of concepts.
            ConfigurationError: The features come from another model, or the pictures are needed and missing, are not as many as the
                features, were not read, or have another shape than what was encoded.
        """
        asked = self.phrased(concepts)
        items = [features] if isinstance(features, str) or not isinstance(features, Iterable) else list(features)
        for item in items:
            if not isinstance(item, PatchFeatures):
                raise ConfigurationError(
                    f"score works on encoded pictures, received {reprlib.repr(item)} ({type(item).__name__}): encode it first."
                )
        if isinstance(features, PatchFeatures):
            return self._answers(items, asked, None if pictures is None else [pictures])[0]
        return self._answers(items, asked, None if pictures is None else pictures_in(pictures, f"score of {len(items)} encoded ones"))

    def _answers(self, features: list[PatchFeatures], concepts: tuple[Concept, ...], pictures: list[Any] | None) -> list[Localizations]:
        refined = self.settings.refine != "none"
        if pictures is None:
            if refined or (self.settings.look_again and any(item.looks is None for item in features)):
                asked = "refine" if refined else "look_again"
                raise ConfigurationError(
                    f"{asked} works on the picture itself, and only its features were given: give the picture too, "
                    f"score(features, concepts, picture), or set {asked}={'none' if refined else False!r}."
                )
            return self._score(features, concepts)
        pixels = _pixels_beside(features, pictures)
        features = self.look_again(features, concepts, pixels)
        answers = self._score(features, concepts)
        return [self.refine(answer, picture, item) for answer, picture, item in zip(answers, pixels, features, strict=True)]

    def look_again(
        self,
        features: Sequence[PatchFeatures],
        concepts: Concept | Iterable[Concept],
        pictures: Sequence[Picture | np.ndarray],
        valids: Sequence[np.ndarray] | None = None,
        *,
        steady: bool = False,
    ) -> list[PatchFeatures]:
        """Reads the best narrow regions of pictures again at twice the resolution, where the settings say so.

        Args:
            features: What the first look saw; where somebody looked again already, they are returned as they are.
            concepts: Whose regions they are.
            pictures: The upright pictures uint8 [H, W, 3], or smaller copies of them.
            valids: Per picture the cells that may be read, bool [h, w]; by default those that show it.
            steady: As for :meth:`encode_prepared`.

        Returns:
            The same features with ``looks``; maps that are scored from them are twice as fine. See :mod:`concept_cam.refine.look`.

        Raises:
            ConfigurationError: As many features, pictures and cells are expected, and each picture is to have the shape of what was
                encoded.
        """
        found = list(features)
        if not self.settings.look_again:
            return found
        pixels = _pixels_beside(found, list(pictures))
        if valids is not None and len(valids) != len(found):
            raise ConfigurationError(
                f"received the valid cells of {len(valids)} pictures for {len(found)} encoded ones: give one for each."
            )
        fresh = [number for number, item in enumerate(found) if item.looks is None]
        shown = [found[number].geometry.valid() if valids is None else valids[number] for number in fresh]
        answers = self._score([found[number] for number in fresh], self.phrased(concepts))
        alike: dict[Settings, list[int]] = {}
        for place, answer in enumerate(answers):
            alike.setdefault(self._settings_of(answer.provenance), []).append(place)
        for settings, places in alike.items():
            # A second look is of a kind with the first, whoever asks for it.
            reader = Localizer(self.backbone, settings, self.rules)
            seen = look_again(
                [found[fresh[place]] for place in places],
                [answers[place].scores for place in places],
                [pixels[fresh[place]] for place in places],
                [shown[place] for place in places],
                reader.preprocess,
                reader.window if settings.resize == "tile" else None,
                lambda pixels, valid, reader=reader: reader._forward(pixels, valid)[0],  # type: ignore[misc]
                1 if steady and self.backbone.device.type == "cpu" else self.settings.batch_size,
            )
            for place, item in zip(places, seen):
                for look in item.looks or ():
                    self._require_finite(look.patches.sum(), item.source)
                found[fresh[place]] = item
        return found

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of cells that the tower takes at once."""
        size = self.settings.size or self.preprocess.default_size
        side = (size, size) if isinstance(size, int) else size
        return side[0] // self.preprocess.stride[0], side[1] // self.preprocess.stride[1]

    def refine(
        self,
        answers: Answers,
        picture: Picture | np.ndarray | None = None,
        features: PatchFeatures | None = None,
        valid: np.ndarray | None = None,
    ) -> Answers:
        """Refines the maps of one picture's answers as the settings say, whatever method made them; see :mod:`concept_cam.refine`.

        Args:
            answers: One answer or all; their scores stay as they are.
            picture: uint8 [H, W, 3], upright, or a smaller copy of it; by default that of the answers.
            features: Those that the answers were scored from, where there are any.
            valid: bool [h, w], cells that may be read; by default those that have a score.

        Raises:
            ConfigurationError: The refiner needs what is not at hand, or the picture has another shape than what was encoded.
        """
        name = self.settings.refine
        if name == "none":
            return answers
        if name not in self._refiners:
            self._refiners[name] = load_refiner(name, self.backbone.device)
        refiner = self._refiners[name]
        assert refiner is not None
        patches = None
        if features is not None:  # a second look's cells lie within those of the first
            patches = features.patches.repeat_interleave(answers.seen, 0).repeat_interleave(answers.seen, 1)
        return refine(answers, refiner, picture, patches, valid, self.backbone.device)

    def _score(self, features: Sequence[PatchFeatures], concepts: tuple[Concept, ...]) -> list[Localizations]:
        for item in features:
            if item.weights_hash != self.backbone.weights_hash:
                raise ConfigurationError(
                    f"the features come from {item.model!r}, this localizer holds {self.backbone.name!r}: encode the picture again."
                )
        texts = self.directions(concepts)
        answers: list[Localizations | None] = [None] * len(features)
        with quiet(graph=False):
            for batch in batches_of_one_size([tuple(item.patches.shape) for item in features], self.settings.batch_size):
                for position, answer in zip(batch, self._score_batch([features[p] for p in batch], concepts, texts)):
                    answers[position] = answer
        return [answer for answer in answers if answer is not None]

    def _score_batch(self, features: Sequence[PatchFeatures], concepts: tuple[Concept, ...], texts: DirectionSet) -> list[Localizations]:
        settings = self.settings
        patches = torch.stack([item.patches for item in features])
        image = torch.stack([item.image for item in features])
        options: dict[str, Any] = {"weighting": settings.weighting, "gamma": settings.gamma, "logit_scale": self.backbone.logit_scale}
        fixed = self._fixed(texts, **options)
        terms, along = fixed or (coefficients(texts, image, **options), None)
        maps = score_patches(patches, texts, terms, settings.feature_norm, along).cpu().numpy()
        levels = image_scores(image, texts, terms, along).cpu().numpy()
        questions = [self._questions(concepts, texts, item) for item in features]
        shares = probabilities(image, texts, questions[0].scales).cpu().numpy()  # the model's own, however a picture was read
        weights = terms.expand(len(features), -1, -1).cpu().numpy()
        parts = [index for index, concept in enumerate(concepts) if concept.metadata.get("kind") == "part"]
        answers = []
        for row, item in enumerate(features):
            scores, geometry = maps[row], item.geometry
            valid = geometry.valid()
            if not valid.all():
                scores = np.where(valid, scores, np.float32(np.nan))
            own = terms[min(row, len(terms) - 1)]
            split: Callable[[int], np.ndarray] = _Ledger(item.patches, texts, own, settings.feature_norm)
            if item.looks is not None:
                split = again = SecondLook(item, texts, own, scores, settings.feature_norm)
                scores, geometry = again.scores(), again.geometry
            answer = Localizations(
                concepts=concepts,
                scores=scores,
                image_scores=levels[row],
                probabilities=self.local_shares(item.patches, texts, scores, shares[row], parts, split),
                terms=weights[row],
                geometry=geometry,
                provenance=self.provenance("direct", item.attention, item.geometry.policy, item.views, item.reading),
                source=item.source,
                split=split,
                seen=geometry.grid[0] // item.geometry.grid[0],
                certify=Certifier(item, questions[row], own, partial(self._domain, item), self._probed),
            )
            answers.append(self._placed(answer, item) if any(concept.where is not None for concept in concepts) else answer)
        return answers

    def _placed(self, answer: Localizations, features: PatchFeatures) -> Localizations:
        """Leaves out of the maps of concepts that name a place what lies elsewhere; the parts that tell the place are asked beside them."""
        wheres = {number: concept.where for number, concept in enumerate(answer.concepts) if concept.where is not None}
        bodies = {where.plan: where.parts for where in wheres.values() if where.parts}
        maps = {plan: self._part_maps(features, parts) for plan, parts in bodies.items()}
        found = place_maps(answer.scores, answer.geometry, wheres, maps)
        certify = answer.certify
        if isinstance(certify, Certifier):  # certificates are those of the first look
            certify = certify.placed(
                {number: coarser(cells, features.geometry.grid) for number, cells in found.cells.items()},
                {number: place.reason for number, place in found.places.items() if not place.resolved},
            )
        parts = [number for number in found.cells if answer.concepts[number].metadata.get("kind") == "part"]
        shares = answer.probabilities
        if parts and (isinstance(answer.split, SecondLook) or found.scores.shape[1:] == features.patches.shape[:2]):
            texts = self.directions(answer.concepts)
            shares = self.local_shares(features.patches, texts, found.scores, shares, parts, answer.split)
        return replace(answer, scores=found.scores, probabilities=shares, certify=certify, places=found.places, cells=found.cells)

    def _part_maps(self, features: PatchFeatures, parts: Sequence[Concept]) -> PartMaps:
        asked = self.phrased(parts)
        answer = self._score_batch([features], asked, self.directions(asked))[0]
        shares = np.array([float(shares[0]) if concept.rivals else 1.0 for concept, shares in zip(asked, answer.probabilities)])
        names = tuple(str(concept.metadata.get("part") or concept.name) for concept in asked)
        return PartMaps(names, answer.scores, shares, answer.geometry)

    @quiet(graph=False)
    def local_shares(
        self,
        patches: Tensor,
        texts: DirectionSet,
        scores: np.ndarray,
        shares: np.ndarray,
        concepts: Sequence[int],
        split: Callable[[int], np.ndarray] | None = None,
    ) -> np.ndarray:
        """Puts the probability at a concept's best cell in place of that over the picture, for parts: all are in the picture at once.

        Args:
            patches: float [h, w, D].
            texts: Embeddings of all concepts.
            scores: float32 [C, h, w]; NaN where nothing may be read.
            shares: float32 [C, 1 + R], over the picture.
            concepts: Which concepts are parts.
            split: The maps' ledger, where ``scores`` are those of a second look.
        """
        chosen = list(concepts)
        if not chosen:
            return shares
        if isinstance(split, SecondLook):
            again = shares.copy()
            for index in chosen:
                own = split.shares(index, scores[index], self.backbone.logit_scale)
                again[index, : len(own)] = own
            return again
        flat = np.where(np.isfinite(scores), scores, -np.inf).reshape(len(scores), -1)[chosen]
        best = patches.flatten(0, 1)[torch.from_numpy(flat.argmax(axis=1)).to(patches.device)]
        local: np.ndarray = shares.copy()
        local[chosen] = probabilities(best, texts, self.backbone.logit_scale, chosen).cpu().numpy()
        return local

    def _questions(self, concepts: tuple[Concept, ...], texts: DirectionSet, features: PatchFeatures) -> Asked:
        """What certificates need of the questions; remembered, for picture after picture is asked the same and read alike."""
        facts = self.conditions(features)
        for made, known in self._certified:
            if known.texts is texts and known.concepts == concepts and made == facts:
                return known
        rules = self.rules.under(facts)
        own = beside(rules, self.backbone.weights_hash, facts)
        found = Asked(
            concepts, texts, self.settings.feature_norm, self.embed_texts, self.backbone.logit_scale, rules, own, self.backbone.sharpness
        )
        self._certified = ((facts, found), *self._certified[: _REMEMBERED - 1])
        return found

    def _domain(self, features: PatchFeatures, group: str) -> Domain:
        """How far a picture is from what the model knows of a group; of all that it knows where none is asked about."""
        distance: Callable[..., Tensor] | None = getattr(self.backbone, "domain", None)
        groups, image = getattr(self.backbone, "groups", ()), features.image[None]
        if distance is None:
            return Domain()
        anyhow = float(distance(image))
        if not groups:
            return Domain(anyhow)
        nearest = str(self.backbone.nearest_group(image)[0])  # type: ignore[attr-defined]
        if not group:
            return Domain(anyhow, nearest)
        if group not in groups:
            return Domain(nearest=nearest)
        own = float(distance(image, group))
        return Domain(own, nearest, own - anyhow)

    @property
    def dtype_name(self) -> str:
        """Name of the image tower's number format, such as ``"float32"``."""
        return self.backbone.number_format

    @property
    def views(self) -> str:
        """Name of the views of a picture that are averaged; the checkpoint's choice where the settings leave it open."""
        return self.settings.views_of(self.backbone.preprocess.views)

    @property
    def reading(self) -> dict[str, Any]:
        """How pictures are read, as plain data: what is used and not what the settings say, which may leave it to the model or name what
        the model does anyway.
        """
        attention = self.settings.attention
        used = input_in_use(self.backbone.preprocess, self.settings)
        if self.settings.resize != "native":
            used["resize_mode"] = None  # No other policy uses it.
        return {
            **used,
            "attention": self.backbone.default_attention if attention == "auto" else attention,
            "views": self.views,
            "max_pixels": self.settings.max_pixels,
        }

    def provenance(
        self, method: str, attention: str, resize: str, views: str = "single", reading: Mapping[str, Any] | None = None
    ) -> Provenance:
        """Returns what is recorded with every result.

        Args:
            method: Localisation method.
            attention: Dense attention strategy that was used.
            resize: Resize policy that was used.
            views: Views that were averaged.
            reading: How the picture was brought to the model's input, where its features say it; else as the settings say.
        """
        own = self.settings.recorded()
        if reading is not None:
            own = {name: value for name, value in own.items() if name not in INPUT_SETTINGS} | dict(reading)
            own.pop(OWN_INPUT, None)
        model = own_input(self.backbone.preprocess)
        used = said_once({**own, "attention": attention, "resize": resize, "views": views, "refine": "none"}, model)
        return Provenance(self.backbone.name, self.backbone.weights_hash, method, self.dtype_name, used, own_input=model)

    def conditions(self, features: PatchFeatures | None = None) -> dict[str, Any]:
        """Returns under what this localizer's maps are made: what was fitted to them holds for no others.

        Args:
            features: Those that the maps are scored from, which may have been encoded under other settings; by default as this localizer
                encodes pictures.
        """
        if features is None:
            attention = self.settings.attention
            used = self.backbone.default_attention if attention == "auto" else attention
            made = self.provenance("direct", used, self.settings.resize, self.views)
        else:
            made = self.provenance("direct", features.attention, features.geometry.policy, features.views, features.reading)
        own = {OWN_INPUT: made.own_input}  # Files that were written earlier may say it too, and hold as well then.
        return {"model": made.model, "weights_hash": made.weights_hash, **made.settings, "refine": self.settings.refine, **own}

    # --------------------------------------------------------------------------------------------------- in one go

    @overload
    def locate(
        self,
        images: str,
        target: Phrases | Concept,
        contrast: Phrases = (),
        *,
        method: str = "direct",
        careful: bool = False,
        **values: Any,
    ) -> Localization: ...
    @overload
    def locate(
        self,
        images: Sequence[ImageSource],
        target: Phrases | Concept,
        contrast: Phrases = (),
        *,
        method: str = "direct",
        careful: bool = False,
        **values: Any,
    ) -> list[Localization]: ...
    @overload
    def locate(
        self,
        images: ImageSource,
        target: Phrases | Concept,
        contrast: Phrases = (),
        *,
        method: str = "direct",
        careful: bool = False,
        **values: Any,
    ) -> Localization: ...
    def locate(
        self,
        images: ImageSource | Sequence[ImageSource],
        target: Phrases | Concept,
        contrast: Phrases = (),
        *,
        method: str = "direct",
        careful: bool = False,
        **values: Any,
    ) -> Localization | list[Localization]:
        """Locates one concept in one picture or in several.

        Args:
            images: A picture, a list or tuple of pictures, or a batch: a tensor [B, C, H, W] or [B, H, W, C], or an array [B, H, W, C].
            target: What to find, one text or several synonym phrases; or a whole :class:`~concept_cam.core.concept.Concept`, contrasts
                included.
            contrast: What it should be told apart from, one text or several.
            method: Localisation method of :data:`concept_cam.methods.METHODS`.
            careful: Whether certificates say how far other readings of the picture agree (:mod:`concept_cam.trust.readings`); costs three
                more encodings of a picture, when its first certificate is asked for.
            **values: Settings for this call only: ``gamma``, ``weighting``, ``attention``, ``resize`` ...

        Returns:
            The answer, or a list of answers in the order of the pictures.

        Raises:
            ConceptCamError: A picture, a text or an option cannot be used.
        """
        concept = _concept(target, contrast)
        several = several_pictures(images)
        if several is not None:
            return [answer[0] for answer in self.locate_all(several, [concept], method=method, careful=careful, **values)]
        return self.locate_all([cast(ImageSource, images)], [concept], method=method, careful=careful, **values)[0][0]

    def locate_all(
        self,
        images: Iterable[ImageSource],
        concepts: Concept | Sequence[Concept],
        *,
        method: str = "direct",
        careful: bool = False,
        **values: Any,
    ) -> list[Localizations]:
        """Locates many concepts in many pictures; each picture is encoded once.

        Args:
            images: Pictures, as a list, a tuple, a batch or anything else that goes through them.
            concepts: One or more concepts, for example ``prompts.load("fish")``.
            method: Localisation method of :data:`concept_cam.methods.METHODS`.
            careful: As for :meth:`locate`.
            **values: Settings for this call only.

        Returns:
            Per picture the answers in the order of the concepts; each holds its picture, so that overlays can be drawn.

        Raises:
            ConfigurationError: A single picture instead of several, or an option that cannot be used.
            PromptError: Words in place of concepts.
            ConceptCamError: A picture, a text or an option cannot be used.
        """
        localizer = self.with_settings(**values) if values else self
        asked = localizer.phrased(concepts)
        pictures = [localizer.read(image) for image in pictures_in(images, "locate_all")]
        answers = explain(localizer, pictures, asked, method)
        if any(concept.where is not None for concept in asked) and not any(answer.places for answer in answers):
            # Where a part lies is told by the direct maps of the others, whatever method explains it.
            answers = [localizer._placed(answer, localizer.encode(picture)) for answer, picture in zip(answers, pictures)]
        answers = [
            answer if answer.refined is not None else localizer.refine(answer, picture.pixels) for answer, picture in zip(answers, pictures)
        ]
        found = [replace(answer, picture=picture.pixels) for answer, picture in zip(answers, pictures)]
        return [localizer.careful(answer) for answer in found] if careful else found

    def careful(self, answers: Localizations) -> Localizations:
        """Returns the answers of one picture with certificates that say how far other readings of it agree.

        The picture is encoded again, mirrored and shifted, when the first certificate is asked for.

        Raises:
            ConfigurationError: The method has no certificates, or the answers were made without their picture or went through a pickle.
        """
        picture = answers.picture
        if answers.certify is not None and not isinstance(answers.certify, Certifier):
            raise ConfigurationError(
                "these answers went through a pickle, with the certificates that they had: no other reading can be added. Ask again, with "
                "careful=True."
            )
        if answers.certify is None:
            raise ConfigurationError(f"the method {answers.provenance.method!r} has no certificate: nothing to be careful about.")
        if picture is None:
            raise ConfigurationError("these answers were made without their picture, which has to be read again.")
        reading = Localizer(self.backbone, self._settings_of(answers.provenance), self.rules)
        geometry = answers.geometry.with_grid((answers.geometry.grid[0] // answers.seen, answers.geometry.grid[1] // answers.seen))
        known: list[tuple[Reading, PatchFeatures]] = []

        def read() -> list[tuple[Reading, PatchFeatures]]:
            if not known:
                known.extend(readings_of(picture, geometry, reading.encode))
            return known

        return replace(answers, certify=answers.certify.careful(read))

    def _settings_of(self, made: Provenance) -> Settings:
        """Returns these settings, but for those by which a picture is encoded: these are what some answers were made with."""
        # What is not recorded was left to the model.
        values: dict[str, Any] = {name: made.settings.get(name) for name in ("attention", "resize", "views", "size", *PREPROCESS_SETTINGS)}
        return replace(self.settings, **values)

    def locate_class(
        self, image: ImageSource, classes: Sequence[str], target: str | None = None, *, references: int = 3, **values: Any
    ) -> Localization:
        """Class-list mode: explains a class against the classes that are most easily taken for it (Finer-CAM's setting).

        Args:
            image: A picture.
            classes: All class names.
            target: The class to explain; ``None`` for the predicted one.
            references: Number of reference classes, those of nearest logit; 1 is the paper's "compare" mode.
            **values: Settings for this call only.

        Raises:
            PromptError: The target is not in the list, the classes are no list, or one of them is empty or given twice.
            ConfigurationError: Fewer than two classes, the number of references is no whole number of at least 1, or another option cannot
                be used.
        """
        localizer = self.with_settings(**values) if values else self
        picture = localizer.read(image)
        features = localizer.encode(picture)
        concept = localizer.class_concept(features, classes, target, references=references)
        answer = localizer._answers([features], (concept,), [picture])[0]
        return replace(answer, picture=picture.pixels)[0]

    def class_concept(self, features: PatchFeatures, classes: Sequence[str], target: str | None = None, *, references: int = 3) -> Concept:
        """Chooses the concept of class-list mode for one encoded picture: the named or predicted class against its nearest classes.

        Raises:
            PromptError: As for :meth:`locate_class`.
            ConfigurationError: Fewer than two classes, or the number of references is no whole number of at least 1.
        """
        if isinstance(classes, str | bytes) or not isinstance(classes, Iterable):
            raise PromptError(f"the class list must be names in a list, received {spoken(classes)}.")
        count = whole_number(plain_number(references))
        count = int(count) if isinstance(count, float) and count.is_integer() else count  # counts that were computed
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ConfigurationError(
                f"the number of reference classes must be a whole number of at least 1, received {spoken(references)}."
            )
        names = [Concept((name,)).name for name in classes]
        if len(names) < 2:
            raise ConfigurationError(f"class lists need at least two classes, received {len(names)}.")
        alike = [normalise_text(name) for name in names]
        twice = [name for name, same in zip(names, alike) if alike.count(same) > 1]
        if twice:
            raise PromptError(f"the class list names {some_of(twice)} more than once: expected different names.")
        if target is not None and target not in names:
            from concept_cam.core.names import did_you_mean

            hint = did_you_mean(target, names)
            raise PromptError(f"the target class {target!r} is not in the class list of {len(names)} names.{hint}")
        asked = self.phrased([Concept((name,)) for name in names])
        texts = self.embed_texts([concept.target_prompts for concept in asked]).to(features.image.device)
        logits = self.backbone.logit_scale * (torch.nn.functional.normalize(features.image, dim=-1) @ texts.T)
        index = int(logits.argmax()) if target is None else names.index(target)
        nearest = nearest_classes(logits, index, count)
        return replace(asked[index], contrasts=tuple((names[other],) for other in nearest), contrast_names=())


def _unpickled(kind: type[Localizer], model: Packed, settings: Settings, rules: Rules) -> Localizer:
    return kind(model.load(), settings, rules)


def _require_rules(rules: Rules | None) -> None:
    """Refuses what is no rules, which would fail when the first certificate is asked for."""
    if rules is not None and not isinstance(rules, Rules):
        raise _no_rules(rules)


def _no_rules(given: object) -> ConfigurationError:
    return ConfigurationError(
        f"rules must be the Rules that were fitted, received {spoken(given)}: give Trust.read('trust.json').rules, "
        "of concept_cam.trust.kept."
    )


def _concepts(concepts: object) -> tuple[Concept, ...]:
    """One or more concepts as a tuple; words are refused, for whether they are synonyms or several questions is not theirs to say."""
    if isinstance(concepts, Concept):
        return (concepts,)
    if isinstance(concepts, str | bytes) or not isinstance(concepts, Iterable):
        raise _no_concept(concepts)
    found = tuple(concepts)
    for item in found:
        if not isinstance(item, Concept):
            raise _no_concept(item)
    return found


def _no_concept(given: object) -> PromptError:
    words = given if isinstance(given, str) and given.strip() else "a forked tail fin"
    return PromptError(
        f"expected concepts, received {spoken(given)}: give Concept({reprlib.repr(words)}), or what prompts.load() returns. locate() takes "
        "words as they are."
    )


def _pixels_beside(features: Sequence[PatchFeatures], pictures: Sequence[object]) -> list[np.ndarray]:
    """The pixels of the pictures that features are of, one for each."""
    if len(pictures) != len(features):
        raise ConfigurationError(
            f"received {len(pictures)} pictures for {len(features)} encoded ones: give one for each, in the order of the features."
        )
    return [pixels_of(picture, item.geometry) for picture, item in zip(pictures, features, strict=True)]


def _concept(target: Phrases | Concept, contrast: Phrases) -> Concept:
    if isinstance(target, Concept):
        if contrast:
            raise PromptError(f"the concept {target.name!r} brings its own contrasts: give it alone, or give the target as text.")
        return target
    if isinstance(target, (list, tuple)) and any(isinstance(item, Concept) for item in target):
        raise PromptError(f"expected one concept, received {len(target)} at once: ask for several with locate_all(images, concepts).")
    contrasts = (contrast,) if isinstance(contrast, str) else contrast
    if not isinstance(contrasts, Iterable):
        raise PromptError(f"the contrast must be text or several texts, received {contrast!r} ({type(contrast).__name__}).")
    if isinstance(target, str):
        return prompts.concept_of_words(target, list(contrasts))
    return Concept(cast(tuple[str, ...], target), tuple((text,) for text in contrasts))


class _Ledger:
    """Splits a picture's maps by text on demand."""

    def __init__(self, patches: Tensor, texts: DirectionSet, terms: Tensor, feature_norm: str) -> None:
        self._patches, self._texts, self._terms, self._feature_norm = patches, texts, terms, feature_norm

    def __call__(self, index: int) -> np.ndarray:
        used = self._texts.used[index]
        rows = self._texts.columns[index][used]
        split = ledger(self._patches, self._texts.texts[rows], self._terms[index][used], self._feature_norm)
        return np.asarray(split.cpu().numpy())
