"""The manifest of a bundle, `manifest.json`, in schema versions 1 to 4.

Version 2 adds bundles that judge the first frames of a clip and nothing after them. Version 3 adds
signals of consecutive frames and a decision on stills, version 4 how pictures are resized. A bundle
is written in the lowest version that can express it, so that older programs read what they can
judge.
"""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from dfd_edge.arguments import LEAST_RATE_HZ, MOST_RATE_HZ
from dfd_edge.inference.names import PRECISIONS, Resize
from dfd_edge.schema import SchemaError, check, dump_json, from_plain, parse_json, to_plain

SCHEMA_VERSION = 1
FIRST_FRAMES_VERSION = 2
"""The version of a manifest with `sequence.first_frames`; older programs refuse it by number."""
SIGNALS_SCHEMA_VERSION = 3
"""The version of a manifest with `sequence.signals` or a decision with `still`."""
RESIZE_SCHEMA_VERSION = 4
"""The version of a manifest whose `frame.resize` is not the usual one."""
_VERSIONS = (SCHEMA_VERSION, FIRST_FRAMES_VERSION, SIGNALS_SCHEMA_VERSION, RESIZE_SCHEMA_VERSION)
MANIFEST_NAME = "manifest.json"

_MAX_CROP_SCALE = 16.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class PersonScore(enum.StrEnum):
    """Pooling of a person's logits: the mean of one kind, or the last of the sequence model."""

    SEQUENCE = "sequence"
    FRAME = "frame"
    LAST = "last"


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file of the bundle: SHA-256 in hexadecimal, size in bytes."""

    sha256: str
    size: int

    def __post_init__(self) -> None:
        check(_SHA256.fullmatch(self.sha256), f"sha256 is {self.sha256!r:.70}, not 64 hex digits")
        check(self.size >= 0, f"size is {self.size}, not 0 or more")


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured figure with the ends of its 95 % interval and how many items it rests on."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


@dataclass(frozen=True, slots=True)
class VariantChanges:
    """Measured changes of a variant of the frame graph against fp32.

    Attributes:
        data: Which crops it was measured on.
        crops: How many.
        mean_logit: Mean absolute change of the frame logit.
        max_logit: Largest absolute change of the frame logit.
        auc: Change of the frame AUC (variant - fp32) with a paired bootstrap interval over groups.
        clips: Clips whose verdicts were compared.
        labels_changed: How many of them got another label.
        speedup: Time of fp32 over time of the variant, one crop, one thread: the median of
            interleaved runs, with their quartiles as `low` and `high`.
        latency_ms: Median time of the variant for one crop.
        provider: What both ran on.
        processor: The processor that the times were taken on.
        onnxruntime: Version of onnxruntime.
    """

    data: str
    crops: int
    mean_logit: float
    max_logit: float
    auc: Metric
    clips: int
    labels_changed: int
    speedup: Metric
    latency_ms: float
    provider: str
    processor: str
    onnxruntime: str


@dataclass(frozen=True, slots=True)
class OptimizedGraph:
    """The graph after onnxruntime's optimiser: it loads faster, on the CPU only.

    Attributes:
        file: Its file.
        onnxruntime: Version that wrote it, as "major.minor"; others read the portable graph.
        load_ms: Median time to load it.
        portable_load_ms: Median time to load the portable graph, in the same run.
    """

    file: str
    onnxruntime: str
    load_ms: float
    portable_load_ms: float


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """One precision of the frame model.

    Attributes:
        file: Its graph.
        probe_logit: The frame logits that it gave on the probe; empty for fp32, whose are in
            `probe`.
        changes: What it changes against fp32; None for fp32.
        optimized: A graph that loads faster; None where it does not pay.
        decision: What was set on its own logits; None for fp32 and where it shares the bundle's.
    """

    file: str
    probe_logit: list[float] = field(default_factory=list)
    changes: VariantChanges | None = None
    optimized: OptimizedGraph | None = None
    decision: DecisionSpec | None = None

    def graphs(self) -> tuple[str, ...]:
        """Returns the names of its files, the portable graph first."""
        return (self.file,) if self.optimized is None else (self.file, self.optimized.file)


@dataclass(frozen=True, slots=True)
class FrameSpec:
    """The frame model.

    Attributes:
        input_size: Height and width of a crop in pixels.
        crop_scale: Side of the square crop over the longer side of the face's box.
        feature_width: F, the width of `features`.
        evidence_size: Height and width of `evidence`; None where the model has none.
        variants: By precision, one of `PRECISIONS`; "fp32" is always there.
        resize: How a cut square comes to the input size.
    """

    input_size: int
    crop_scale: float
    feature_width: int
    evidence_size: tuple[int, int] | None
    variants: dict[str, VariantSpec]
    resize: Resize = Resize.AREA

    def __post_init__(self) -> None:
        check(self.input_size >= 1, f"input_size is {self.input_size}, not 1 or more")
        scale = self.crop_scale
        check(0 < scale <= _MAX_CROP_SCALE, f"crop_scale is {scale}, not above 0, at most 16")
        check(self.feature_width >= 1, f"feature_width is {self.feature_width}, not 1 or more")
        check("fp32" in self.variants, "variants has no fp32")
        check(self.variants["fp32"].decision is None, "variants.fp32 has a decision of its own")
        for name in self.variants:
            check(name in PRECISIONS, f"variants has {name!r:.40}, not of {', '.join(PRECISIONS)}")

    @property
    def schema_version(self) -> int:
        """The lowest schema version that can express it."""
        return SCHEMA_VERSION if self.resize is Resize.AREA else RESIZE_SCHEMA_VERSION

    def graphs(self) -> dict[str, str]:
        """Returns the precision of each graph of the frame model, by file name."""
        return {file: name for name, variant in self.variants.items() for file in variant.graphs()}


@dataclass(frozen=True, slots=True)
class SignalsSpec:
    """The measurements of consecutive frames that the sequence model takes beside the features.

    Attributes:
        version: Version of the measurements; a program measures in one version only.
        names: Their names, in the order of the vector.
        units: The unit of each, as text.
    """

    version: int
    names: list[str]
    units: list[str]

    def __post_init__(self) -> None:
        check(self.version >= 1, f"version is {self.version}, not 1 or more")
        check(self.names, "names is empty")
        twice = next((name for name, uses in Counter(self.names).items() if uses > 1), None)
        check(twice is None, f"names has {twice!r:.40} twice")
        names, units = len(self.names), len(self.units)
        check(names == units, f"units has {units} entries, names {names}")

    @property
    def width(self) -> int:
        """How many measurements there are."""
        return len(self.names)


@dataclass(frozen=True, slots=True)
class SequenceSpec:
    """The sequence model.

    Attributes:
        file: Its graph.
        rate_hz: Steps per second that it was trained at.
        state_width: S, the width of `state`.
        max_gap_s: After a gap longer than this between two steps the state is reset.
        first_frames: How many frames are judged, every one from the first on, none after them;
            `rate_hz` then says only how long such a step usually is. None to judge on and on,
            at `rate_hz`.
        signals: What is measured between consecutive frames at each step; None where the model
            takes the features alone.
    """

    file: str
    rate_hz: float
    state_width: int
    max_gap_s: float
    first_frames: int | None = None
    signals: SignalsSpec | None = None

    def __post_init__(self) -> None:
        check(self.rate_hz > 0, f"rate_hz is {self.rate_hz}, not above 0")
        low, high = LEAST_RATE_HZ, MOST_RATE_HZ
        check(low <= self.rate_hz <= high, f"rate_hz is {self.rate_hz}, not {low:g} to {high:g}")
        check(self.state_width >= 1, f"state_width is {self.state_width}, not 1 or more")
        check(self.max_gap_s > 0, f"max_gap_s is {self.max_gap_s}, not above 0")
        first = self.first_frames
        check(first is None or first >= 1, f"first_frames is {first}, not 1 or more")
        both = first is not None and self.signals is not None
        check(not both, "signals are measured on faces, first_frames judges whole frames")

    @property
    def schema_version(self) -> int:
        """The lowest schema version that can express it."""
        if self.signals is not None:
            return SIGNALS_SCHEMA_VERSION
        return SCHEMA_VERSION if self.first_frames is None else FIRST_FRAMES_VERSION


@dataclass(frozen=True, slots=True)
class FaceSpec:
    """The face detector that the model was trained with ("none" for whole-frame models)."""

    detector: str
    sha256: str
    options: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Calibrator:
    """Platt scaling: probability of fake = sigmoid(slope * logit + intercept)."""

    slope: float
    intercept: float


@dataclass(frozen=True, slots=True)
class Threshold:
    """The score at which a label starts, and how it was set.

    Attributes:
        probability: `fake` at or above it, or `real` at or below it.
        target_rate: The rate of wrong labels that it was chosen for.
        rate: The rate measured on the training's own folds, groups of footage weighing alike.
        n: How many groups.
        upper_bound: The rate is below it with 95 % confidence.
    """

    probability: float
    target_rate: float
    rate: float
    n: int
    upper_bound: float

    def __post_init__(self) -> None:
        for name in ("probability", "target_rate", "rate", "upper_bound"):
            value = getattr(self, name)
            check(0.0 <= value <= 1.0, f"{name} is {value}, not between 0 and 1")
        check(self.n >= 0, f"n is {self.n}, not 0 or more")


@dataclass(frozen=True, slots=True)
class StillSpec:
    """How the frame logit of a still becomes a label.

    Attributes:
        calibrator: From the frame logit of one crop to its probability.
        thresholds: "real" and "fake"; between the two the label is `unsure`.
    """

    calibrator: Calibrator
    thresholds: dict[str, Threshold]

    def __post_init__(self) -> None:
        _check_thresholds(self.thresholds)


@dataclass(frozen=True, slots=True)
class DecisionSpec:
    """How logits become labels.

    Attributes:
        person_score: Which logits a person's score is the mean of, or that it is the last one.
        calibrators: "frame", "step" and "person".
        thresholds: "real" and "fake"; between the two the label is `unsure`.
        min_steps: With fewer judged steps the label is `unsure`.
        window_s: Length of the sliding window of a live score in seconds.
        settle_steps: After n judged steps, what the person's calibrator gives before the sigmoid
            is multiplied by n / (n + settle_steps): short looks count less.
        settle_detail: And for a step of detail d by d / (d + settle_detail): blur counts less.
        still: The decision on stills; None where they are decided by the calibrator of crops and
            the thresholds of clips.
    """

    person_score: PersonScore
    calibrators: dict[str, Calibrator]
    thresholds: dict[str, Threshold]
    min_steps: int = 4
    window_s: float = 10.0
    settle_steps: float = 0.0
    settle_detail: float = 0.0
    still: StillSpec | None = None

    def __post_init__(self) -> None:
        _check_keys("calibrators", self.calibrators, {"frame", "step", "person"})
        _check_thresholds(self.thresholds)
        check(self.min_steps >= 1, f"min_steps is {self.min_steps}, not 1 or more")
        check(self.window_s > 0, f"window_s is {self.window_s}, not above 0")
        for name in ("settle_steps", "settle_detail"):
            check(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}, not 0 or more")
            mean = self.person_score is not PersonScore.LAST
            check(mean or not getattr(self, name), f"{name} is for means, not for the last logit")

    @classmethod
    def from_json(cls, text: str) -> DecisionSpec:
        """Reads the JSON that `to_json` writes.

        Raises:
            SchemaError: The text does not keep the schema.
        """
        return from_plain(cls, parse_json(text))

    def to_json(self) -> str:
        """Writes it as JSON."""
        return dump_json(self)


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """A stored input with its outputs as of the export.

    Attributes:
        file: A PNG picture, RGB: the crops one below the other.
        fake_logit: The frame model's logit of each crop.
        step_logit: The sequence model's logit after each crop, the crops taken as one clip.
        tolerance: How far a logit may be off on another machine.
    """

    file: str
    fake_logit: list[float]
    step_logit: list[float]
    tolerance: float

    def __post_init__(self) -> None:
        same = len(self.fake_logit) == len(self.step_logit) > 0
        check(same, "fake_logit and step_logit are not equally many, one or more")
        check(self.tolerance > 0, f"tolerance is {self.tolerance}, not above 0")


@dataclass(frozen=True, slots=True)
class CardInfo:
    """The model card: training data, metrics, licence and limits.

    Attributes:
        training_data: What it was trained on, in sentences.
        protocol: How it was trained, calibrated and evaluated, in sentences.
        metrics: Figures by name, in the order in which the card shows them.
        licence: Terms of the model files and of the weights it started from.
        limits: What it cannot do, a sentence each.
    """

    training_data: str
    protocol: str
    metrics: dict[str, Metric]
    licence: str
    limits: list[str]

    @classmethod
    def from_json(cls, text: str) -> CardInfo:
        """Reads the JSON that `to_json` writes.

        Raises:
            SchemaError: The text does not keep the schema.
        """
        return from_plain(cls, parse_json(text))

    def to_json(self) -> str:
        """Writes it as JSON."""
        return dump_json(self)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The whole manifest.

    Attributes:
        schema_version: `schema_version_of` its parts, or a later one.
        name: The bundle's name.
        created: When it was written, ISO 8601 in UTC.
        files: Every file of the bundle but the manifest, by its name inside the folder.
    """

    schema_version: int
    name: str
    created: str
    files: dict[str, FileEntry]
    frame: FrameSpec
    sequence: SequenceSpec
    face: FaceSpec
    decision: DecisionSpec
    probe: ProbeSpec
    card: CardInfo

    def __post_init__(self) -> None:
        for name in self.files:
            check(is_inside(name), f"files: the path {name!r:.80} leads out of the folder")
        frame = [file for variant in self.frame.variants.values() for file in variant.graphs()]
        for name, uses in Counter([*frame, self.sequence.file, self.probe.file]).items():
            check(name in self.files, f"files: {name!r:.80} is used but not listed")
            check(uses == 1, f"files: {name!r:.80} is used {uses} times, each has one use")
        crops = len(self.probe.fake_logit)
        for precision, variant in self.frame.variants.items():
            count = len(variant.probe_logit)
            check(
                count in (0, crops),
                f"frame.variants.{precision}.probe_logit has {count} logits, the probe {crops}",
            )
        self._check_first_frames()
        self._check_version()

    def _check_version(self) -> None:
        wanted, version = SIGNALS_SCHEMA_VERSION, self.schema_version
        new = version >= wanted
        check(
            new or self.sequence.signals is None,
            f"sequence.signals is of version {wanted}, not {version}",
        )
        still = any(decision.still is not None for decision in self._decisions())
        check(new or not still, f"decision.still is of version {wanted}, not {version}")
        wanted = self.frame.schema_version
        check(version >= wanted, f"frame.resize is of version {wanted}, not {version}")

    def _decisions(self) -> list[DecisionSpec]:
        own = [variant.decision for variant in self.frame.variants.values()]
        return [self.decision, *(decision for decision in own if decision is not None)]

    def _check_first_frames(self) -> None:
        first = self.sequence.first_frames
        if first is None:
            last = any(d.person_score is PersonScore.LAST for d in self._decisions())
            check(not last, "decision.person_score is 'last' without sequence.first_frames")
            return
        wanted = FIRST_FRAMES_VERSION
        version = self.schema_version
        check(version >= wanted, f"sequence.first_frames is of version {wanted}, not {version}")
        whole = self.face.detector == "none"
        check(whole, "sequence.first_frames is for whole frames: face.detector must be 'none'")

    def graphs(self) -> tuple[str, ...]:
        """Returns the names of the ONNX files."""
        return (*self.frame.graphs(), self.sequence.file)

    def decision_of(self, precision: str) -> DecisionSpec:
        """Returns the decision of a variant: its own, or the bundle's."""
        return self.frame.variants[precision].decision or self.decision

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Reads the text of a `manifest.json`.

        Raises:
            SchemaError: The text is not JSON, is of a newer schema, or does not keep the schema.
        """
        value = parse_json(text)
        version = value.get("schema_version") if isinstance(value, dict) else None
        if isinstance(version, int) and version > max(_VERSIONS):
            raise SchemaError(
                f"schema version {version} is newer than {max(_VERSIONS)}, the newest that this "
                "program reads: upgrade dfd-edge"
            )
        if version not in _VERSIONS:
            raise SchemaError(
                f"schema_version is {version!r:.20}, not one of {', '.join(map(str, _VERSIONS))}"
            )
        return from_plain(cls, value)

    def to_json(self) -> str:
        """Writes the text of a `manifest.json`."""
        plain = to_plain(self)
        # Keys that older programs do not know are left out where they say nothing.
        if self.frame.resize is Resize.AREA:
            del plain["frame"]["resize"]
        for name in ("first_frames", "signals"):
            _drop_null(plain["sequence"], name)
        _drop_null(plain["decision"], "still")
        for variant in plain["frame"]["variants"].values():
            if variant["decision"] is not None:
                _drop_null(variant["decision"], "still")
        return dump_json(plain)


def schema_version_of(
    frame: FrameSpec, sequence: SequenceSpec, decisions: Iterable[DecisionSpec]
) -> int:
    """Returns the lowest schema version for models and decisions."""
    still = any(decision.still is not None for decision in decisions)
    least = SIGNALS_SCHEMA_VERSION if still else SCHEMA_VERSION
    return max(least, frame.schema_version, sequence.schema_version)


def is_inside(name: str) -> bool:
    """Returns whether a path stays inside its folder on every system, by its text alone."""
    path = PurePosixPath(name)
    plain = not any(character in name for character in "\\:\0")
    return plain and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def _drop_null(entries: dict[str, Any], name: str) -> None:
    if entries[name] is None:
        del entries[name]


def _check_thresholds(thresholds: Mapping[str, Threshold]) -> None:
    _check_keys("thresholds", thresholds, {"real", "fake"})
    real, fake = thresholds["real"].probability, thresholds["fake"].probability
    check(real <= fake, f"thresholds: real ({real}) lies above fake ({fake})")


def _check_keys(name: str, entries: Mapping[str, object], wanted: set[str]) -> None:
    found = ", ".join(sorted(entries)) or "nothing"
    check(entries.keys() == wanted, f"{name} has {found}, not {', '.join(sorted(wanted))}")
