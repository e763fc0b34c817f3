"""A bundle on disk, checked against its manifest and the contract of its graphs."""

from __future__ import annotations

import hashlib
import math
import stat
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from dfd_edge.bundle.manifest import (
    MANIFEST_NAME,
    FaceSpec,
    FrameSpec,
    Manifest,
    SequenceSpec,
    SignalsSpec,
)
from dfd_edge.bundle.onnx_file import OnnxFile, TensorSignature, read_onnx
from dfd_edge.errors import BundleError
from dfd_edge.faces.signals import NAMES, SIGNALS_VERSION
from dfd_edge.schema import SchemaError

DEFAULT_BUNDLE = Path(__file__).resolve().parents[1] / "models" / "default"
"""The shipped bundle."""

_MAX_MANIFEST_BYTES = 1 << 20
_MAX_FILE_BYTES = (1 << 31) - 1
"""Largest size of a protocol buffer, and so of an ONNX file."""
_MAX_ROW = 1 << 26
"""Most numbers in an input or output for one crop or step; a forged size would fill the memory."""
_LOOPS = ("Loop", "If", "Scan", "SequenceMap")
_FUSED = (
    *("FusedConv", "NhwcFusedConv", "NhwcMaxPool", "FusedGemm", "FusedMatMul", "Attention"),
    *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "SkipLayerNormalization"),
    *("SkipSimplifiedLayerNormalization", "EmbedLayerNormalization", "QAttention"),
    *("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeMatMul", "MatMulIntegerToFloat"),
    *("MatMulNBits", "QGemm", "QLinearConv", "QLinearAdd", "QLinearMul", "QLinearConcat"),
    *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", "QLinearSigmoid"),
    *("QLinearLeakyRelu", "QLinearSoftmax", "QLinearWhere"),
)
_BLOCKED = (
    *("Conv", "MaxPool", "AveragePool", "GlobalMaxPool", "GlobalAveragePool", "Upsample"),
    *("ReorderInput", "ReorderOutput"),
)
OPTIMISER_OPERATORS = frozenset(
    [
        *(f"com.microsoft:{name}" for name in _FUSED),
        *(f"com.microsoft.nchwc:{name}" for name in _BLOCKED),
    ]
)
"""Operators that onnxruntime's optimiser puts in place of standard ones on a CPU.

Others of its domains run whole models inside them, or open files of any path.
"""
METADATA_PREFIX = "dfd_edge."
"""Prefix of the metadata keys in a graph's file."""

Signatures = dict[str, TensorSignature]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle whose files have been checked.

    Attributes:
        path: Its folder.
        manifest: Its manifest.
        sha256: Hash of `manifest.json`, hexadecimal: with the hashes in it, of the whole bundle.
    """

    path: Path
    manifest: Manifest
    sha256: str
    _kept: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    @property
    def hash(self) -> str:
        """The first 12 digits of `sha256`, for reports."""
        return self.sha256[:12]

    @classmethod
    def load(cls, path: Path | str | None = None, *, keep: bool = False) -> Bundle:
        """Opens a bundle and checks it: schema, paths, hashes, and what each graph declares.

        Args:
            path: The bundle's folder; None for the shipped one.
            keep: Keep the checked files in memory until they are read or `release` is called, for
                a caller that opens the graphs next: each file is then read and hashed once.

        Raises:
            BundleError: It is missing, damaged, or does not keep the contract. The message names
                the file, what was found and what was expected.
        """
        bundle = cls.described(path)
        bundle.check(keep=keep)
        return bundle

    @classmethod
    def described(cls, path: Path | str | None = None) -> Bundle:
        """Reads the manifest alone, for a caller that has `check` look at the files later.

        Args:
            path: As in `load`.

        Raises:
            BundleError: The manifest is missing, damaged, or for another program.
        """
        folder = DEFAULT_BUNDLE if path is None else Path(path)
        text = _read_manifest(folder)
        try:
            manifest = Manifest.from_json(text.decode("utf-8"))
        except (SchemaError, UnicodeDecodeError) as error:
            raise BundleError(f"{folder / MANIFEST_NAME}: {error}") from error
        _check_signals(folder / MANIFEST_NAME, manifest.sequence.signals)
        return cls(folder, manifest, hashlib.sha256(text).hexdigest())

    def check(self, *, keep: bool = False) -> None:
        """Checks the files: paths, hashes, and what each graph declares, as `load` does.

        Args:
            keep: As in `load`.

        Raises:
            BundleError: A file is missing, damaged, or does not keep the contract.
        """
        folder, manifest = self.path, self.manifest
        contract = graph_contract(manifest)
        identity = graph_identity(manifest.name, manifest.frame, manifest.sequence, manifest.face)
        _check_sizes(folder / MANIFEST_NAME, contract)
        for name in manifest.files:
            data = self.read(name)
            if keep:
                self._kept[name] = data
            if name in contract:
                extra = frozenset() if name in _portable(manifest) else OPTIMISER_OPERATORS
                graph = check_graph(folder / name, data, *contract[name], extra=extra)
                _check_identity(folder / name, graph.metadata, identity[name])

    def read(self, name: str) -> bytes:
        """Returns one file, checked against the manifest.

        Raises:
            BundleError: The file is missing, leads out of the folder, or is not the one that the
                manifest lists.
        """
        if (kept := self._kept.pop(name, None)) is not None:
            return kept
        entry = self.manifest.files[name]
        path = self.path / name
        if not name.isprintable():
            raise BundleError(f"{self.path / MANIFEST_NAME}: {name!r:.80} is no name for a file")
        if entry.size > _MAX_FILE_BYTES:
            raise BundleError(
                f"{self.path / MANIFEST_NAME}: gives {name} {entry.size} bytes, but a file has at "
                f"most {_MAX_FILE_BYTES}: this is no bundle"
            )
        _check_inside(path, self.path)
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path}: is no file: copy or export the bundle again")
            size = status.st_size
            data = path.read_bytes() if size == entry.size else b""
        except OSError as error:
            raise BundleError(
                f"{path}: listed in the manifest but cannot be read ({error.strerror}): "
                "copy or export the bundle again"
            ) from error
        if size != entry.size:
            raise BundleError(
                f"{path}: {size} bytes, but the manifest says {entry.size}: "
                "copy or export the bundle again"
            )
        sha256 = hashlib.sha256(data).hexdigest()
        if sha256 != entry.sha256:
            raise BundleError(
                f"{path}: sha256 {sha256[:12]}…, but the manifest says {entry.sha256[:12]}…: the "
                "file was changed or damaged: copy or export the bundle again"
            )
        return data

    def release(self) -> None:
        """Frees the files that `load` kept in memory."""
        self._kept.clear()


def graph_contract(manifest: Manifest) -> dict[str, tuple[Signatures, Signatures]]:
    """Returns the inputs and outputs that each graph of a bundle must declare, by file name."""
    frame = frame_contract(manifest.frame)
    contract = dict.fromkeys(manifest.frame.graphs(), frame)
    contract[manifest.sequence.file] = sequence_contract(manifest.frame, manifest.sequence)
    return contract


def graph_identity(
    name: str, frame: FrameSpec, sequence: SequenceSpec, face: FaceSpec
) -> dict[str, dict[str, str]]:
    """Returns the metadata that each graph may not contradict, by file name."""
    shared = {
        "bundle": name,
        "feature_width": f"{frame.feature_width}",
        "crop_scale": f"{frame.crop_scale:g}",
        "rate_hz": f"{sequence.rate_hz:g}",
        "face_detector": face.detector,
        "face_detector_sha256": face.sha256,
    }
    identity = {
        file: {**shared, "graph": "frame", "precision": precision}
        for file, precision in frame.graphs().items()
    }
    width = f"{sequence.state_width}"
    identity[sequence.file] = {**shared, "graph": "sequence", "state_width": width}
    return {
        file: {METADATA_PREFIX + key: value for key, value in entries.items()}
        for file, entries in identity.items()
    }


def frame_contract(frame: FrameSpec) -> tuple[Signatures, Signatures]:
    """Returns the inputs and outputs of a frame graph."""
    size = frame.input_size
    outputs = {
        "features": TensorSignature("float32", ("batch", frame.feature_width)),
        "fake_logit": TensorSignature("float32", ("batch",)),
    }
    if frame.evidence_size is not None:
        outputs["evidence"] = TensorSignature("float32", ("batch", *frame.evidence_size))
    return {"image": TensorSignature("uint8", ("batch", size, size, 3))}, outputs


def sequence_contract(frame: FrameSpec, sequence: SequenceSpec) -> tuple[Signatures, Signatures]:
    """Returns the inputs and outputs of a sequence graph."""
    state = TensorSignature("float32", ("batch", sequence.state_width))
    inputs = {
        "features": TensorSignature("float32", ("batch", "time", frame.feature_width)),
        "lengths": TensorSignature("int32", ("batch",)),
        "state": state,
    }
    if sequence.signals is not None:
        width = sequence.signals.width
        inputs["signals"] = TensorSignature("float32", ("batch", "time", width))
        inputs["measured"] = TensorSignature("float32", ("batch", "time"))
    logit = TensorSignature("float32", ("batch", "time"))
    return inputs, {"fake_logit": logit, "next_state": state}


def check_graph(
    path: Path,
    data: bytes,
    inputs: Signatures,
    outputs: Signatures,
    *,
    extra: frozenset[str] = frozenset(),
) -> OnnxFile:
    """Checks what a graph declares.

    Args:
        path: The file, for messages.
        data: Its bytes.
        inputs: The inputs that it must declare, and no others.
        outputs: The outputs that it must declare, and no others.
        extra: Operators that it may hold beside ONNX's own, a colon after the domain.

    Returns:
        What the file declares.

    Raises:
        BundleError: It does not keep to that, loops, has graphs inside it or other operators, or
            keeps weights in another file.
    """
    try:
        graph = read_onnx(data)
    except (ValueError, RecursionError) as error:
        raise BundleError(
            f"{path}: not an ONNX graph ({error}): export the bundle again"
        ) from error
    if graph.external_data:
        raise BundleError(
            f"{path}: keeps weights in another file ({graph.external_data[0]!r:.80}); a bundle's "
            "graphs hold all of theirs: export it again"
        )
    if loops := [name for name in _LOOPS if name in graph.operators]:
        raise BundleError(
            f"{path}: holds {', '.join(loops)}; a bundle's graphs have no loops: export it again"
        )
    if graph.subgraphs:
        raise BundleError(
            f"{path}: holds {', '.join(graph.subgraphs)!r:.80} with a graph inside; a bundle's "
            "graphs have no branches and no loops: export it again"
        )
    if foreign := [name for name in graph.operators if ":" in name and name not in extra]:
        rule = (
            "an optimised graph has those of ONNX and those that onnxruntime's optimiser writes"
            if extra
            else "a bundle's graphs have operators of ONNX itself only, which every runtime has"
        )
        raise BundleError(f"{path}: holds {', '.join(foreign)!r:.80}; {rule}: export it again")
    if graph.functions:
        raise BundleError(
            f"{path}: defines {graph.functions} operators of its own; a bundle's graphs have those "
            "of ONNX itself only: export it again"
        )
    _check_side(path, "input", graph.inputs, inputs)
    _check_side(path, "output", graph.outputs, outputs)
    return graph


def _check_side(path: Path, side: str, found: Signatures, wanted: Signatures) -> None:
    if found.keys() != wanted.keys():
        raise BundleError(
            f"{path}: its {side}s are {', '.join(found) or 'none'}, but the contract has "
            f"{', '.join(wanted)}: export the bundle again"
        )
    for name, signature in wanted.items():
        if found[name] != signature:
            raise BundleError(
                f"{path}: {side} {name} is {found[name]}, but the manifest makes it "
                f"{signature}: the graph belongs to another bundle"
            )


def _portable(manifest: Manifest) -> set[str]:
    """Returns the graphs in standard ONNX, without those that onnxruntime has optimised."""
    files = {variant.file for variant in manifest.frame.variants.values()}
    return {*files, manifest.sequence.file}


def _check_identity(path: Path, metadata: dict[str, str], wanted: dict[str, str]) -> None:
    """Compares metadata with the manifest; keys that older exports lack are skipped."""
    for key, value in wanted.items():
        found = metadata.get(key, value)
        if found != value:
            raise BundleError(
                f"{path}: says of itself {key} = {found!r:.80}, but the manifest makes it "
                f"{value!r:.80}: the graph belongs elsewhere"
            )


def _check_signals(path: Path, spec: SignalsSpec | None) -> None:
    """Refuses signals that are not those of this program."""
    if spec is None:
        return
    if spec.version != SIGNALS_VERSION:
        mend = (
            "upgrade dfd-edge"
            if spec.version > SIGNALS_VERSION
            else "fit and export the sequence model again"
        )
        raise BundleError(
            f"{path}: the sequence model takes signals of version {spec.version}, but this "
            f"program measures version {SIGNALS_VERSION}: {mend}"
        )
    if spec.names != list(NAMES):
        pairs = zip_longest(spec.names, NAMES)
        found, wanted = next((found, own) for found, own in pairs if found != own)
        raise BundleError(
            f"{path}: signal {spec.names.index(found) if found else len(spec.names)} of the "
            f"sequence model is {found!r:.60}, but this program measures {wanted!r}: fit and "
            "export the sequence model again"
        )


def _check_sizes(path: Path, contract: dict[str, tuple[Signatures, Signatures]]) -> None:
    for inputs, outputs in contract.values():
        for name, signature in {**inputs, **outputs}.items():
            row = math.prod(axis for axis in signature.axes if isinstance(axis, int))
            if row > _MAX_ROW:
                raise BundleError(
                    f"{path}: makes {name} {signature}; a row of it has at most {_MAX_ROW} "
                    "numbers: this is no bundle"
                )


def _check_inside(path: Path, folder: Path) -> None:
    try:
        target = path.resolve()
        inside = target.is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return  # a link that leads to itself: reading it says so
    if not inside:
        raise BundleError(f"{path}: leads out of the bundle, to {target}: refused")


def _read_manifest(folder: Path) -> bytes:
    path = folder / MANIFEST_NAME
    try:
        is_folder = folder.is_dir()
    except OSError as error:
        raise BundleError(f"{folder!s:.200}: cannot be read ({error.strerror})") from error
    if not is_folder:
        mend = (
            "dfd-edge was installed without its model: install it again, or name a bundle"
            if folder == DEFAULT_BUNDLE
            else "give the folder of a bundle"
        )
        raise BundleError(f"{folder}: no such folder: {mend}")
    _check_inside(path, folder)
    try:
        if path.exists() and not path.is_file():
            raise BundleError(f"{path}: is no file: this folder is no bundle")
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise BundleError(
                f"{path}: {path.stat().st_size} bytes, but a manifest has at most "
                f"{_MAX_MANIFEST_BYTES}: this is no bundle"
            )
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror}): this folder is no bundle"
        ) from error
