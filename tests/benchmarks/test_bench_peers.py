"""`dfd-bench peers` with a small network: engines agree before they are timed, figures fit."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import av
import keras
import numpy as np
import pytest
from bench_results import read_valid
from click.testing import CliRunner
from skimage import data

from dfd_benchmarks.cli import main
from dfd_benchmarks.peers import frames as frames_module
from dfd_benchmarks.peers.engines import (
    TOLERANCE,
    Engine,
    check_distinguishes,
    check_same,
    difference,
    keras_predict,
)
from dfd_benchmarks.peers.frames import open_peers
from dfd_benchmarks.peers.loop import NotebookLoop, measure_loop
from dfd_benchmarks.peers.networks import Networks, export_networks
from dfd_edge.bundle import Bundle
from dfd_edge.errors import DfdError, SourceError
from dfd_export.gate import parity
from dfd_training.models import build_frame_model, save_model
from dfd_training.recipes.clip_reading import first_crops
from dfd_training.recipes.networks import build_rnn

FRAMES = 5
SIZE = 64


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of a picture that moves."""
    path = tmp_path_factory.mktemp("clip") / "moving.mp4"
    picture = np.ascontiguousarray(data.astronaut()[:240, 100:420, ::-1])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for number in range(10):
            image = np.ascontiguousarray(np.roll(picture, 12 * number, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def networks() -> Networks:
    keras.utils.set_random_seed(1)
    frame = build_frame_model(backbone="custom_cnn", input_size=SIZE, weights="none")
    sequence = build_rnn(feature_width=int(frame.output["features"].shape[-1]))
    return Networks("small", "random", frame, sequence)


@pytest.fixture(scope="module")
def crops(clip: Path) -> np.ndarray:
    return first_crops(clip, frames=FRAMES, size=SIZE)[0]


@pytest.fixture(scope="module")
def few_cases() -> Any:
    """The exporter's own tests go through all its cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "BATCHES", (1, 3))
        patch.setattr(parity, "TIMES", (1, 7))
        yield


@pytest.fixture(scope="module")
def bundle(
    networks: Networks,
    crops: np.ndarray,
    few_cases: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Bundle:
    out = tmp_path_factory.mktemp("peers") / "bundle"
    return export_networks(networks, out, crops=crops, int8=False)


def measured(*arguments: object) -> tuple[str, dict[str, Any]]:
    """What the command prints and writes."""
    file = Path(str(arguments[-1]))
    result = CliRunner().invoke(main, ["peers", *map(str, arguments[:-1]), "--json", str(file)])
    assert result.exit_code == 0, result.output
    return result.stdout, read_valid(file)


@pytest.fixture(scope="module")
def saved(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("keras") / "frame.keras"
    save_model(networks.frame, path)
    return path


def medians(record: dict[str, Any]) -> dict[str, float]:
    return {figure["name"]: figure["median"] for figure in record["figures"]}


@pytest.mark.slow
def test_every_engine_that_runs_is_timed_beside_the_runtime(
    clip: Path, saved: Path, few_cases: None, tmp_path: Path
):
    sizes = ["--frames", FRAMES, "--runs", 2]
    printed, record = measured(clip, "--keras", saved, *sizes, tmp_path / "peers.json")
    engines = record["details"]["engines"]
    assert {"runtime_fp32", "runtime_int8", "keras", "tensorflow", "onnxruntime"} <= set(engines)
    skipped = record["details"]["skipped"]
    assert {"litert", "openvino", "torch"} <= set(engines) | set(skipped)
    found = medians(record)
    for name, engine in engines.items():
        assert engine["version"] in printed
        assert engine["threads_requested"] == 1
        assert found[f"frame.{name}"] > 0
        if name not in ("runtime_fp32", "runtime_int8"):
            assert 0 <= engine["difference"] <= TOLERANCE
            ratios = next(f for f in record["figures"] if f["name"] == f"ratio.{name}")["values"]
            peer, own = (
                next(f for f in record["figures"] if f["name"] == f"frame.{key}")["values"]
                for key in (name, "runtime_fp32")
            )
            assert ratios == pytest.approx([p / o for p, o in zip(peer, own, strict=True)])
    assert record["ran"]["precision"] == "fp32"


@pytest.mark.slow
def test_the_notebooks_loop_is_timed_beside_analyze(
    clip: Path, saved: Path, few_cases: None, tmp_path: Path
):
    sizes = ["--frames", FRAMES, "--runs", 2, "--no-int8"]
    printed, record = measured(clip, "--keras", saved, "--loop", *sizes, tmp_path / "loop.json")
    figures = {figure["name"]: figure for figure in record["figures"]}
    assert set(figures) == {"clip.notebook", "clip.fp32", "ratio.fp32"}
    expected = [
        notebook / own
        for notebook, own in zip(
            figures["clip.notebook"]["values"], figures["clip.fp32"]["values"], strict=True
        )
    ]
    assert figures["ratio.fp32"]["values"] == pytest.approx(expected)
    assert figures["ratio.fp32"]["bar"] is None, "the bars are for other networks"
    assert record["details"]["logit_difference"]["fp32"] <= TOLERANCE
    assert "notebooks' loop" in printed


def test_the_notebooks_loop_sees_the_same_frames(networks: Networks, clip: Path, crops: np.ndarray):
    pictures = NotebookLoop(networks, FRAMES).read(clip)
    assert pictures.shape == crops.shape
    same = np.abs(pictures.astype(int) - crops).mean(axis=(1, 2, 3))
    next_frame = np.abs(pictures[:-1].astype(int) - crops[1:]).mean(axis=(1, 2, 3))
    assert same.max() < next_frame.min()


def test_an_engine_that_differs_is_not_timed(
    networks: Networks, bundle: Bundle, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
):
    def wrong(networks: Networks, bundle: Bundle, threads: int) -> Engine:
        right = keras_predict(networks, bundle, threads)

        def run(given: np.ndarray):
            features, logit = right.run(given)
            return features * np.float32(1.01), logit

        return dataclasses.replace(right, run=run)

    monkeypatch.setattr(frames_module, "OPENERS", (wrong,))
    with pytest.raises(DfdError, match=r"Keras predict differs from the runtime by 0\.01"):
        open_peers(networks, bundle, crops, threads=1)


def test_a_loop_with_other_weights_is_not_timed(
    networks: Networks, bundle: Bundle, crops: np.ndarray, clip: Path
):
    other = dataclasses.replace(networks, sequence=build_rnn(feature_width=networks.feature_width))
    dense = other.sequence.get_layer("logit")
    dense.set_weights([kernel + 1.0 for kernel in dense.get_weights()])
    with pytest.raises(DfdError, match="the notebooks' loop differs from the runtime"):
        measure_loop(other, bundle, crops, clip=clip, kind=None, threads=1, runs=1)


def test_numbers_that_are_none_and_shapes_that_differ_are_differences():
    right = np.ones((2, 3), np.float32), np.ones(2, np.float32)
    nothing = np.full((2, 3), np.nan, np.float32), np.ones(2, np.float32)
    with pytest.raises(DfdError, match="nothing was measured"):
        check_same("it", difference(nothing, right))
    with pytest.raises(DfdError, match="nothing was measured"):
        check_same("it", difference((right[0][:1], right[1]), right))
    check_same("it", difference(right, right))


def test_a_network_that_says_the_same_of_all_frames_checks_nothing():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, 8)).astype(np.float32)
    check_distinguishes(features)
    constant = np.repeat(features[:1], 3, axis=0) + 1e-4 * features
    for useless in (constant, np.zeros_like(features)):
        with pytest.raises(DfdError, match="would not show a fault"):
            check_distinguishes(useless)
    # However small the numbers are, what differs is seen.
    assert difference([features * 1e-7], [features * 2e-7]) == pytest.approx(0.5)


def test_what_cannot_be_measured_is_said_in_one_line(clip: Path, saved: Path, tmp_path: Path):
    def failure(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(main, ["peers", *map(str, arguments)])
        return result.exit_code, result.stderr.splitlines()[-1]

    code, line = failure(clip, "--keras", saved, "--frames", 50)
    assert code == 1
    assert "has 10 frames; give a longer one, or fewer --frames" in line
    code, line = failure(clip, "--keras", tmp_path / "no.keras")
    assert code == 2
    assert "no such model file" in line
    with pytest.raises(SourceError, match="OpenCV reads no frame"):
        NotebookLoop.read(_reader(), tmp_path / "missing.mp4")


def _reader() -> NotebookLoop:
    frame = build_frame_model(backbone="custom_cnn", input_size=SIZE, weights="none")
    width = int(frame.output["features"].shape[-1])
    return NotebookLoop(Networks("n", "random", frame, build_rnn(feature_width=width)), FRAMES)
