"""The fakes that each generator makes from a store: files, numbers of crops and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np

from dfd_training.augment.generators.redraw import (
    Redraw,
    Upscaler,
    draw_redrawing,
    redraw_by,
    redraw_crops,
)
from dfd_training.augment.generators.swap import People, choose_donor, clip_colour, swap_clip
from dfd_training.augment.generators.writer import (
    FakeWriter,
    RealFile,
    file_rng,
    real_clips,
    real_photographs,
)
from dfd_training.augment.synthesis.detail import Picture
from dfd_training.data.store import CropStore, StoredCrop

UPSCALED = "upscaled head"
SWAPPED = "swap autoencoder"
REBUILT = "reconstructed head"
REPAINTED = "repainted face"


@dataclass(frozen=True, slots=True)
class GenerateOptions:
    """How many fakes are generated.

    Attributes:
        swap_crops: Crops of a clip for each swap.
        swaps: Different identities for each clip.
        redraws: Times that each clip and photograph is drawn anew, by other networks and settings.
        head_crops: Crops of a clip for each redrawing.
        photographs: Photographs that are drawn anew, at most, chosen at random.
        seed: Seed of everything drawn.
    """

    swap_crops: int = 12
    swaps: int = 2
    redraws: int = 1
    head_crops: int = 8
    photographs: int = 800
    seed: int = 0


Progress = Callable[[int, int], None]
"""Called after each file with the number of files done and of all."""

_Maker = Callable[
    [RealFile, list[StoredCrop], np.random.Generator], tuple[list[Picture], str] | None
]


def _no_progress(done: int, total: int) -> None:
    del done, total


class Networks:
    """Networks that draw a picture anew: head autoencoders, super-resolution, or both.

    Args:
        heads: Autoencoders by their names.
        upscaler: Super-resolution networks, or None.
    """

    def __init__(
        self, heads: dict[str, keras.Model] | None = None, upscaler: Upscaler | None = None
    ) -> None:
        self._heads = {name: redraw_by(model) for name, model in (heads or {}).items()}
        self._upscaler = upscaler

    def draw(self, rng: np.random.Generator, face_px: float) -> tuple[Redraw, str]:
        """Draws a network for faces of this size; its name goes into the column `model`."""
        # Both kinds alike, however many networks each has.
        if self._upscaler is not None and (not self._heads or rng.random() < 0.5):
            settings = self._upscaler.draw(rng, face_px)
            return self._upscaler.redraw_by(settings), f"x{settings.factor}"
        names = sorted(self._heads)
        name = names[int(rng.integers(len(names)))]
        return self._heads[name], name


def generate_redrawn(
    store: CropStore,
    networks: Networks,
    generator: str,
    options: GenerateOptions | None = None,
    *,
    on_file: Progress = _no_progress,
) -> int:
    """Draws clips and photographs anew by networks: the face alone for `REPAINTED`, else all.

    Args:
        store: The crops.
        networks: One is drawn for each file.
        generator: The name under which the files are stored.
        options: Numbers of fakes to generate.
        on_file: Called after each file.

    Returns:
        Number of files generated; earlier ones are not counted.
    """
    options = options or GenerateOptions()

    def make(
        _: RealFile, crops: list[StoredCrop], rng: np.random.Generator
    ) -> tuple[list[Picture], str]:
        settings = draw_redrawing(rng, face_only=generator == REPAINTED)
        redraw, name = networks.draw(rng, settings.face_px)
        return redraw_crops(crops, redraw, settings), name

    files = [*real_clips(store), *sample_photographs(store, options)]
    jobs = [(file, number) for number in range(options.redraws) for file in files]
    return _make(
        store, generator, jobs, make, crops=options.head_crops, seed=options.seed, on_file=on_file
    )


def generate_swaps(
    store: CropStore,
    model: keras.Model,
    people: People,
    options: GenerateOptions | None = None,
    *,
    on_file: Progress = _no_progress,
) -> int:
    """Swaps each clip for people of its own fold, of similar tone.

    Returns:
        Number of files generated; earlier ones are not counted.
    """
    options = options or GenerateOptions()

    def make(
        file: RealFile, crops: list[StoredCrop], rng: np.random.Generator
    ) -> tuple[list[Picture], str] | None:
        person = choose_donor(people, file.group, file.fold, clip_colour(crops), rng)
        if person is None:
            return None
        return swap_clip(model, crops, person, rng), people.groups[person]

    # Each clip once before any twice: a run that is broken off has served all clips alike.
    jobs = [(file, number) for number in range(options.swaps) for file in real_clips(store)]
    return _make(
        store, SWAPPED, jobs, make, crops=options.swap_crops, seed=options.seed, on_file=on_file
    )


def _make(
    store: CropStore,
    generator: str,
    jobs: Sequence[tuple[RealFile, int]],
    make: _Maker,
    *,
    crops: int,
    seed: int,
    on_file: Progress,
) -> int:
    made = 0
    with FakeWriter(store, generator) as writer:
        for count, (file, number) in enumerate(jobs, start=1):
            if not writer.done(file, number):
                rng = file_rng(seed, generator, number, file.path)
                positions = file.spread(crops, rng)
                crops_of_file = [store.crop(file.shard, position) for position in positions]
                result = make(file, crops_of_file, rng)
                if result is not None:
                    pictures, model = result
                    writer.add(file, number, positions, pictures, model=model)
                    made += 1
            on_file(count, len(jobs))
    return made


def sample_photographs(store: CropStore, options: GenerateOptions) -> list[RealFile]:
    """Returns the photographs to work on: at most one a group, drawn at random."""
    by_group: dict[str, RealFile] = {}
    rng = np.random.default_rng((options.seed, 1))
    files = real_photographs(store)
    for number in rng.permutation(len(files)):
        by_group.setdefault(files[number].group, files[number])
    return sorted(list(by_group.values())[: options.photographs], key=lambda file: file.path)
