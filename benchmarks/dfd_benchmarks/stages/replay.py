"""Answers given before, so that what stands behind a model can be run without it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from dfd_edge.faces import Face
    from dfd_edge.inference.session import FrameOutputs, SequenceOutputs, Session
    from dfd_edge.sources.frames import Pixels

#: What `Session.run_sequence` takes.
SequenceInputs = tuple[
    NDArray[np.float32],
    NDArray[np.int32],
    NDArray[np.float32],
    NDArray[np.float32] | None,
    NDArray[np.float32] | None,
]


class KnownFaces:
    """Gives the faces that were found before.

    Args:
        found: The faces of each frame, in the frames' order.
    """

    def __init__(self, found: list[list[Face]]) -> None:
        self._found = iter(found)

    def detect(self, frame: Pixels, *, thorough: bool = False) -> list[Face]:
        """The faces of the next frame."""
        return next(self._found)


class RecordingSession:
    """A session that keeps what its models were asked and what they said.

    Args:
        session: Answers.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.frame_outputs: list[FrameOutputs] = []
        self.sequence_outputs: list[SequenceOutputs] = []
        self._inputs: list[list[SequenceInputs]] = [[]]

    def end_of_frame(self) -> None:
        """Begins the next frame: later calls belong to it."""
        self._inputs.append([])

    def sequence_inputs(self) -> Iterator[list[SequenceInputs]]:
        """Yields the inputs of the sequence model, frame by frame; most often one call."""
        yield from self._inputs[:-1]

    def run_frame(self, crops: NDArray[np.uint8]) -> FrameOutputs:
        """As `Session.run_frame`."""
        outputs = self.session.run_frame(crops)
        self.frame_outputs.append(outputs)
        return outputs

    def run_sequence(
        self,
        features: NDArray[np.float32],
        lengths: NDArray[np.int32],
        state: NDArray[np.float32],
        signals: NDArray[np.float32] | None = None,
        measured: NDArray[np.float32] | None = None,
    ) -> SequenceOutputs:
        """As `Session.run_sequence`."""
        self._inputs[-1].append((features, lengths, state, signals, measured))
        outputs = self.session.run_sequence(features, lengths, state, signals, measured)
        self.sequence_outputs.append(outputs)
        return outputs

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all else is the session's own
        return getattr(self.session, name)


class ReplayedSession:
    """A session whose models say again what they said, in the same order, at no cost.

    Args:
        recorded: The recorded outputs.
    """

    def __init__(self, recorded: RecordingSession) -> None:
        self.session = recorded.session
        self._frame = iter(recorded.frame_outputs)
        self._sequence = iter(recorded.sequence_outputs)

    def run_frame(self, crops: NDArray[np.uint8]) -> FrameOutputs:
        """The next answer of the frame model."""
        return next(self._frame)

    def run_sequence(
        self,
        features: NDArray[np.float32],
        lengths: NDArray[np.int32],
        state: NDArray[np.float32],
        signals: NDArray[np.float32] | None = None,
        measured: NDArray[np.float32] | None = None,
    ) -> SequenceOutputs:
        """The next answer of the sequence model."""
        return next(self._sequence)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - all else is the session's own
        return getattr(self.session, name)
