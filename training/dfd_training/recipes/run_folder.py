"""What a recipe leaves in its run's folder, for the exporter to find."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from dfd_edge.errors import UsageError

FRAME_NAME = "frame.keras"
SEQUENCE_NAME = "sequence.keras"
DECISION_NAME = "decision.json"
CARD_NAME = "card.json"
CROPS_NAME = "crops.npy"
_RUN_NAME = "run.json"


def is_run(folder: Path) -> bool:
    """Tells whether a folder looks like that of a run, finished or not."""
    return (folder / _RUN_NAME).is_file()


@dataclass(frozen=True, slots=True)
class RecipeRun:
    """A finished run of a recipe for whole frames.

    Attributes:
        folder: of the run.
        first_frames: how many frames of a clip are judged.
        rate_hz: frames a second that the clips usually have.
    """

    folder: Path
    first_frames: int
    rate_hz: float

    @classmethod
    def read(cls, folder: Path) -> RecipeRun:
        """Finds a run.

        Raises:
            UsageError: The folder holds no finished run of a recipe.
        """
        try:
            facts = json.loads((folder / _RUN_NAME).read_text("utf-8"))["recipe"]
            run = cls(folder, int(facts["first_frames"]), float(facts["rate_hz"]))
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise UsageError(
                f"{folder}: no finished run of a recipe: give a folder that `dfd-train recipe` "
                "wrote, or a model file"
            ) from error
        for name in (FRAME_NAME, SEQUENCE_NAME, DECISION_NAME, CARD_NAME, CROPS_NAME):
            if not (folder / name).is_file():
                raise UsageError(f"{folder / name}: is missing: run the recipe once more")
        return run
