"""What runs where, in types that print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ProviderReport:
    """What runs, and whether it is what was asked for.

    True when the frame graph runs on the provider asked for; for `auto`, when it runs on the
    best one that the installed onnxruntime was built with. Its text says so in words.

    Attributes:
        requested: The provider asked for.
        actual: The provider that the frame graph runs on.
        sequence_actual: The provider of the sequence graph. One step of it takes microseconds
            on a CPU, less than a copy to an accelerator, so that is where it runs.
        precision: The variant of the frame graph.
        precision_reason: Why that variant.
        reason: Why something better did not run; None where nothing was missed.
        face_actual: The provider of the face detector; None where the bundle has none.
        device: The device that was asked for, as in `ProviderOptions`; None for the default.
        elsewhere: Operator and provider of the frame graph's nodes that `actual` left to another:
            only ones that look at shapes, move values or change their type.
    """

    requested: str
    actual: str
    sequence_actual: str
    precision: str
    precision_reason: str = "as asked"
    reason: str | None = None
    face_actual: str | None = "cpu"
    device: str | None = None
    elsewhere: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return self.reason is None

    def __str__(self) -> str:
        device = "" if self.device is None else f" {self.device}"
        runs = f"{self.actual}{device} ({self.precision})"
        if self.elsewhere:
            nodes = ", ".join(
                sorted({f"{operator} on {where}" for operator, where in self.elsewhere})
            )
            runs += f" but for {nodes}"
        if (small := self._small_models()) is not None:
            runs += f", {small}"
        return f"{runs}: {self.reason}" if self.reason else runs

    def _small_models(self) -> str | None:
        """Where the small models run, if not all on the frame graph's provider."""
        places = {"sequence model": self.sequence_actual, "face detector": self.face_actual}
        apart = {name: place for name, place in places.items() if place not in (None, self.actual)}
        if len(apart) == len(places) and len({*apart.values()}) == 1:
            return f"sequence model and face detector on {self.sequence_actual}"
        return ", ".join(f"{name} on {place}" for name, place in apart.items()) or None


@dataclass(frozen=True, slots=True)
class ProviderProbe:
    """Whether a provider of the installed onnxruntime really ran a graph here; if not, why."""

    provider: str
    works: bool
    detail: str
