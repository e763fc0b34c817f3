"""The graphs run elsewhere, and the programs in `examples/graphs` run them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest

from dfd_benchmarks.peers.engines import load_openvino
from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.inference.session import Session
from dfd_edge.judging.decision import Decision
from small_bundle import SIZE, build_small_bundle

ROOT = Path(__file__).resolve().parents[2]
NODE_PACKAGES = ("onnxruntime-web@1", "pngjs@7")
LOGIT_TOLERANCE = 1e-3
CROPS = 5

_NUMBER = r"(-?\d+\.\d+)"
_LINE = re.compile(
    rf"(\S+\.png) frame {_NUMBER} P\(fake\) {_NUMBER}  step {_NUMBER} P\(fake\) {_NUMBER}"
)


def code(name: str) -> str:
    """The text of a program that the page shows."""
    return (ROOT / "examples" / "graphs" / name).read_text("utf-8")


def run(*command: object, cwd: Path, timeout_s: float = 300) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@dataclass(frozen=True)
class Judged:
    """Crops that the example cut, and what the runtime says of them as one clip."""

    bundle: Path
    folder: Path
    pictures: list[str]
    rows: np.ndarray

    def check(self, output: str) -> None:
        found = _LINE.findall(output)
        assert [row[0] for row in found] == self.pictures, output
        values = np.array([row[1:] for row in found], float)
        np.testing.assert_allclose(values, self.rows, atol=LOGIT_TOLERANCE)


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    folder = tmp_path_factory.mktemp("interop")
    (folder / "crops.py").write_text(code("crops.py"), "utf-8")
    clip = ROOT / "samples" / "real_hopper.mp4"
    run(sys.executable, "crops.py", DEFAULT_BUNDLE, clip, cwd=folder)
    made = sorted(path.name for path in folder.glob("crop*.png"))
    assert len(made) == 20  # four seconds at 5 Hz
    return judge(DEFAULT_BUNDLE, folder, made[:CROPS])


@pytest.fixture(scope="module")
def judged_with_signals(judged: Judged, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """The same crops, and a bundle whose sequence model takes signals."""
    folder = tmp_path_factory.mktemp("signals")
    build_small_bundle(folder / "bundle", signals=True)
    for name in judged.pictures:
        crop = cv2.imread(str(judged.folder / name))
        small = cv2.resize(crop, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / name), small)
    return judge(folder / "bundle", folder, judged.pictures)


def judge(bundle: Path, folder: Path, pictures: list[str]) -> Judged:
    """What the runtime says of crops, none of whose steps has measured signals."""
    session = Session.open(Bundle.load(bundle), provider="cpu", precision="fp32")
    bgr = np.stack([cv2.imread(str(folder / name)) for name in pictures])
    frames = session.run_frame(np.ascontiguousarray(bgr[..., ::-1]))
    steps = session.run_sequence(
        frames.features[None], np.array([CROPS], np.int32), session.initial_state(1)
    )
    decision = Decision(session.bundle.manifest.decision)
    rows = [
        [frame, decision.p_frame(frame), step, decision.p_step(step)]
        for frame, step in zip(
            frames.fake_logit.tolist(), steps.fake_logit[0].tolist(), strict=True
        )
    ]
    return Judged(bundle, folder, pictures, np.array(rows))


@pytest.mark.parametrize("which", ["judged", "judged_with_signals"])
def test_a_short_python_program_says_what_the_runtime_says(
    which: str, request: pytest.FixtureRequest
):
    judged: Judged = request.getfixturevalue(which)
    (judged.folder / "judge.py").write_text(code("judge.py"), "utf-8")
    output = run(sys.executable, "judge.py", judged.bundle, *judged.pictures, cwd=judged.folder)
    judged.check(output)


@pytest.fixture(scope="module")
def node_folder() -> Iterator[Path]:
    """A folder whose scripts find the page's npm packages, which are installed once and kept."""
    npm = shutil.which("npm")
    if shutil.which("node") is None or npm is None:
        pytest.skip("Node.js and npm are not installed")
    cache = ROOT / ".cache" / "npm"
    cache.mkdir(parents=True, exist_ok=True)
    if not all((cache / "node_modules" / p.partition("@")[0]).is_dir() for p in NODE_PACKAGES):
        (cache / "package.json").write_text('{"private": true}', "utf-8")
        install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund"]
        patience = ["--fetch-retries=1", "--fetch-timeout=60000"]
        done = subprocess.run(
            [*install, *patience, *NODE_PACKAGES],
            cwd=cache,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"npm cannot install {' '.join(NODE_PACKAGES)}: {done.stderr[-300:]}")
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        yield Path(folder)


@pytest.mark.slow
@pytest.mark.parametrize("which", ["judged", "judged_with_signals"])
def test_a_short_javascript_program_says_what_the_runtime_says(
    which: str, node_folder: Path, request: pytest.FixtureRequest
):
    judged: Judged = request.getfixturevalue(which)
    script = node_folder / "judge.mjs"
    script.write_text(code("judge.mjs"), "utf-8")
    output = run("node", script, judged.bundle, *judged.pictures, cwd=judged.folder)
    judged.check(output)


def graph(precision: str) -> Path:
    """A graph of the shipped bundle: of a precision, or "sequence"."""
    manifest = Bundle.load().manifest
    if precision == "sequence":
        return DEFAULT_BUNDLE / manifest.sequence.file
    if precision not in manifest.frame.variants:
        pytest.skip(f"the shipped bundle has no {precision} variant")
    return DEFAULT_BUNDLE / manifest.frame.variants[precision].file


def in_openvino(path: Path):
    """A graph compiled by OpenVINO for the CPU, at full precision."""
    try:
        core = load_openvino().Core()
    except ImportError:
        pytest.skip("OpenVINO is not installed")
    model = core.read_model(path)
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def random_crops(batch: int) -> np.ndarray:
    size = Bundle.load().manifest.frame.input_size
    rng = np.random.default_rng(batch)
    coarse = rng.integers(0, 256, (batch, 5, 5, 3), np.uint8)
    return np.stack([cv2.resize(c, (size, size), interpolation=cv2.INTER_CUBIC) for c in coarse])


def test_openvino_runs_the_frame_graph_at_any_batch():
    path = graph("fp32")
    compiled, session = in_openvino(path), onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    for batch in (1, 3, 8):
        crops = random_crops(batch)
        found = compiled({"image": crops})
        for name, wanted in zip(names, session.run(names, {"image": crops}), strict=True):
            assert found[name].shape == wanted.shape
            np.testing.assert_allclose(found[name], wanted, atol=1e-3, err_msg=name)


def test_openvino_runs_the_int8_frame_graph():
    """Quantised arithmetic is rounded elsewhere: what counts is that the graph says the same."""
    path = graph("int8")
    changes = Bundle.load().manifest.frame.variants["int8"].changes
    assert changes is not None
    compiled, session = in_openvino(path), onnxruntime.InferenceSession(path)
    crops = random_crops(8)
    found = compiled({"image": crops})["fake_logit"]
    [wanted] = session.run(["fake_logit"], {"image": crops})
    assert np.abs(found - wanted).mean() <= max(0.1, 2 * changes.mean_logit)


def sequence_inputs(batch: int, steps: int, lengths: np.ndarray) -> dict[str, np.ndarray]:
    manifest = Bundle.load().manifest
    rng = np.random.default_rng(batch * 100 + steps)
    features = rng.uniform(0, 2, (batch, steps, manifest.frame.feature_width))
    state = rng.uniform(-1, 1, (batch, manifest.sequence.state_width))
    inputs = {
        "features": features.astype(np.float32),
        "lengths": lengths.astype(np.int32),
        "state": state.astype(np.float32),
    }
    if (signals := manifest.sequence.signals) is not None:
        values = rng.uniform(-1, 1, (batch, steps, signals.width))
        inputs["signals"] = values.astype(np.float32)
        inputs["measured"] = rng.integers(0, 2, (batch, steps)).astype(np.float32)
    return inputs


def test_openvino_runs_the_sequence_graph_at_any_batch_and_time():
    path = graph("sequence")
    compiled, session = in_openvino(path), onnxruntime.InferenceSession(path)
    for batch, steps in ((1, 1), (3, 7), (8, 20)):
        inputs = sequence_inputs(batch, steps, np.full(batch, steps))
        found = compiled(inputs)
        logit, state = session.run(["fake_logit", "next_state"], inputs)
        np.testing.assert_allclose(found["fake_logit"], logit, atol=1e-3)
        np.testing.assert_allclose(found["next_state"], state, atol=1e-3)


def test_openvino_judges_padded_sequences_up_to_their_length():
    """Beyond it the page says what OpenVINO does: the state goes on through the padding."""
    path = graph("sequence")
    compiled, session = in_openvino(path), onnxruntime.InferenceSession(path)
    lengths = np.array([7, 3, 1, 5])
    inputs = sequence_inputs(4, 7, lengths)
    real = np.arange(7)[None] < lengths[:, None]
    [wanted] = session.run(["fake_logit"], inputs)
    np.testing.assert_allclose(compiled(inputs)["fake_logit"][real], wanted[real], atol=1e-3)


@pytest.mark.parametrize("name", ["fp32", "sequence"])
def test_tensorrt_parses_the_graphs(name: str):
    tensorrt = pytest.importorskip("tensorrt", reason="TensorRT is not installed")
    logger = tensorrt.Logger(tensorrt.Logger.ERROR)
    try:
        builder = tensorrt.Builder(logger)
    except (RuntimeError, TypeError) as error:
        pytest.skip(f"TensorRT finds no device ({error})")
    parser = tensorrt.OnnxParser(builder.create_network(0), logger)
    parsed = parser.parse(graph(name).read_bytes())
    errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
    assert parsed, errors
