"""The probe: an input stored in the bundle, and what came out of it when it was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dfd_edge.bundle import Bundle
from dfd_edge.errors import BundleError
from dfd_edge.manifest import Manifest, ProbeSpec
from dfd_edge.session import Session

PROBE_FILE = "probe.png"
PROBE_CROPS = 4
PROBE_TOLERANCE = 1e-2
"""In logits. Processors and onnxruntime releases add in another order; a wrong model is far off."""


def make_probe_crops(size: int) -> NDArray[np.uint8]:
    """Draws the probe's crops: soft coloured fields with fine grain. They show nobody.

    Args:
        size: Height and width in pixels.

    Returns:
        uint8 [4, size, size, 3], the same on every machine.
    """
    rng = np.random.default_rng(20)
    crops = []
    for _ in range(PROBE_CROPS):
        coarse = rng.uniform(30, 225, (5, 5, 3)).astype(np.float32)
        field = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
        crops.append(np.clip(field + rng.normal(0, 8, field.shape), 0, 255).astype(np.uint8))
    return np.stack(crops)


def write_probe(path: Path, crops: NDArray[np.uint8]) -> None:
    """Writes RGB crops one below the other as PNG."""
    column = crops.reshape(-1, crops.shape[2], 3)
    done, data = cv2.imencode(".png", column[:, :, ::-1])
    assert done
    path.write_bytes(data.tobytes())


def read_probe(bundle: Bundle) -> NDArray[np.uint8]:
    """Reads the crops of a bundle's probe: uint8 [n, S, S, 3], RGB.

    Raises:
        BundleError: The file is no picture of that size.
    """
    spec, size = bundle.manifest.probe, bundle.manifest.frame.input_size
    data = np.frombuffer(bundle.read(spec.file), np.uint8)
    column = cv2.imdecode(data, cv2.IMREAD_COLOR)
    wanted = (len(spec.fake_logit) * size, size, 3)
    if column is None or column.shape != wanted:
        found = "no picture" if column is None else f"{list(column.shape)}"
        raise BundleError(f"{bundle.path / spec.file}: {found}, but the probe is {list(wanted)}")
    rgb = np.asarray(column[:, :, ::-1], np.uint8, order="C")
    return rgb.reshape(-1, size, size, 3)


def run_probe(
    session: Session, crops: NDArray[np.uint8]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Runs the crops through both graphs, as one clip.

    Returns:
        The frame logit of each crop and the sequence logit after each, float32 [n].
    """
    frames = session.run_frame(crops)
    steps = session.run_sequence(
        frames.features[None], np.array([len(crops)], np.int32), session.initial_state(1)
    )
    return frames.fake_logit, steps.fake_logit[0]


def measure_probe(session: Session, crops: NDArray[np.uint8]) -> ProbeSpec:
    """Runs the probe and writes down what came out."""
    frame, step = run_probe(session, crops)
    return ProbeSpec(
        file=PROBE_FILE,
        fake_logit=[float(value) for value in frame],
        step_logit=[float(value) for value in step],
        tolerance=PROBE_TOLERANCE,
    )


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What a probe run gave.

    Attributes:
        compared: The outputs that the manifest has expectations for, on this variant.
        difference: The largest difference of a logit from them.
        allowed: How large it may be.
    """

    compared: tuple[str, ...]
    difference: float
    allowed: float


def check_probe(session: Session) -> ProbeResult:
    """Runs a bundle's probe through the session's variant and the sequence graph, and compares.

    Raises:
        BundleError: A logit is not finite, or differs by more than the manifest allows.
    """
    bundle = session.bundle
    frame, step = run_probe(session, read_probe(bundle))
    found = {"fake_logit": frame, "step_logit": step}
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise BundleError(
                f"{bundle.path}: probe crop {int(np.isfinite(values).argmin())} gives {name} that "
                f"is not finite on {session.provider}: the model does not work on this machine"
            )
    precision = session.provider.precision
    expected = _expected(bundle.manifest, precision)
    tolerance = _tolerance(bundle.manifest, precision)
    largest = 0.0
    for name, wanted in expected.items():
        difference = np.abs(found[name] - np.asarray(wanted))
        worst = int(difference.argmax())
        largest = max(largest, float(difference[worst]))
        if not difference[worst] <= tolerance:
            raise BundleError(
                f"{bundle.path}: probe crop {worst} gives {name} {found[name][worst]:.4f} on "
                f"{session.provider}, but the manifest says {wanted[worst]:.4f} (allowed "
                f"difference {tolerance:g}): the model does not work on this machine as it did "
                "when it was exported"
            )
    return ProbeResult(tuple(expected), largest, tolerance)


def _expected(manifest: Manifest, precision: str) -> dict[str, list[float]]:
    """By output, the logits that this variant gave when it was written."""
    if precision == "fp32":
        return {
            "fake_logit": manifest.probe.fake_logit,
            "step_logit": manifest.probe.step_logit,
        }
    logits = manifest.frame.variants[precision].probe_logit
    return {"fake_logit": logits} if logits else {}


def _tolerance(manifest: Manifest, precision: str) -> float:
    """Another processor rounds a variant's products elsewhere, by less than the variant itself
    moves a logit on average; a graph that saturates or is the wrong one is further off."""
    changes = manifest.frame.variants[precision].changes
    own = manifest.probe.tolerance
    return own if changes is None else max(own, changes.mean_logit)
