"""What the gate puts into a frame graph: random and real crops, alone, together and mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle import frame_contract
from dfd_edge.bundle.manifest import FrameSpec
from dfd_export.crops import random_crops
from dfd_export.gate.comparison import Comparison, Expected, check_distinct, compare
from dfd_export.gate.oracle import Oracle


@dataclass(frozen=True, slots=True, eq=False)
class FrameCases:
    """Crops in batches, and what the Keras model says of them.

    Attributes:
        crops: uint8 [n, S, S, 3].
        wanted: By output, one row a crop.
        rows: By case, the crops in it.
    """

    crops: NDArray[np.uint8]
    wanted: dict[str, Expected]
    rows: dict[str, NDArray[Any]]

    @classmethod
    def make(
        cls,
        model: keras.Model,
        spec: FrameSpec,
        crops: NDArray[np.uint8],
        batches: Sequence[int],
        rng: np.random.Generator,
    ) -> FrameCases:
        """Asks the model about random and real crops, once for all batches.

        Args:
            model: The Keras frame model.
            spec: Its contract.
            crops: uint8 [n, S, S, 3], RGB: real ones.
            batches: How many crops there shall be in a case.
            rng: Draws the random ones.

        Raises:
            CollapsedModel: Its logit hardly varies.
        """
        most = max(batches)
        real = crops[np.resize(rng.permutation(len(crops)), most)]
        both = np.concatenate([random_crops(rng, most, spec.input_size), real])
        answers = Oracle(model)(both.astype(np.float32))
        wanted = {name: answers[name] for name in frame_contract(spec)[1]}
        check_distinct(model.name, wanted["fake_logit"], f"{len(both)} random and real crops")
        rows = {}
        for n in batches:
            picked = rng.permutation(most)[:n]
            rows[f"random crops, batch {n}"] = picked
            rows[f"real crops, batch {n}"] = most + picked
            if n > 1:
                in_turn = np.where(np.arange(n) % 2, picked, most + picked)
                rows[f"random and real crops, batch {n}"] = in_turn
        return cls(both, wanted, rows)

    def compare(self, session: Any) -> list[Comparison]:  # noqa: ANN401
        """Runs a frame graph's onnxruntime session on each case."""
        names = list(self.wanted)
        comparisons = []
        for case, rows in self.rows.items():
            found = session.run(names, {"image": self.crops[rows]})
            comparisons += [
                compare("frame", case, name, value, self.wanted[name].take(rows))
                for name, value in zip(names, found, strict=True)
            ]
        return comparisons
