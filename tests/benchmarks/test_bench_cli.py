"""`dfd-bench` on a small clip and a small bundle: every figure is there and they fit together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from skimage import data

from dfd_benchmarks.cli import main

RATE_HZ = 5
SECONDS = 3


@pytest.fixture(scope="session")
def face_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds of one face that moves a little."""
    path = tmp_path_factory.mktemp("bench") / "face.mp4"
    portrait = np.ascontiguousarray(data.astronaut()[:300, 80:380, ::-1])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        for number in range(10 * SECONDS):
            turn = cv2.getRotationMatrix2D((150, 150), 3 * np.sin(number / 4), 320 / 300)
            image = cv2.warpAffine(portrait, turn, (320, 320), borderMode=cv2.BORDER_REPLICATE)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    return path


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def stages(
    face_clip: Path, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """What `dfd-bench stages` prints and writes."""
    file = tmp_path_factory.mktemp("report") / "stages.json"
    code, printed, _ = run("stages", face_clip, "--model", tiny_bundle, "--runs", 2, "--json", file)
    assert code == 0
    return printed, json.loads(file.read_text())


def test_stages_counts_the_judged_frames(stages: tuple[str, dict[str, Any]]) -> None:
    result = stages[1]["result"]
    assert result["frames"] == RATE_HZ * SECONDS
    assert result["crops_per_frame"] == 1.0


def test_every_stage_costs_something(stages: tuple[str, dict[str, Any]]) -> None:
    costs = stages[1]["result"]["cpu_ms"]
    assert list(costs) == [
        "decoding",
        "face detection",
        "tracking and cropping",
        "frame graph",
        "sequence graph",
    ]
    for cost in costs.values():
        assert 0 < cost["low"] <= cost["median"] <= cost["high"]
        assert cost["runs"] == 2
    # The face detector is a network over 192 px; a crop is a copy of a few pixels.
    assert costs["face detection"]["low"] > costs["tracking and cropping"]["low"]


def test_what_is_allowed_follows_from_costs_and_cores(
    stages: tuple[str, dict[str, Any]],
) -> None:
    result = stages[1]["result"]
    dearest = sum(cost["high"] for cost in result["cpu_ms"].values())
    cheapest = sum(cost["low"] for cost in result["cpu_ms"].values())
    assert result["cores"] * 1e3 / dearest <= result["allowed_hz"]["low"] * 1.0001
    assert result["allowed_hz"]["high"] <= result["cores"] * 1e3 / cheapest * 1.0001
    lowest = result["reached_hz"]["low"] / result["allowed_hz"]["high"]
    assert lowest <= result["efficiency"]["low"] * 1.0001
    assert result["efficiency"]["high"] > 0


def test_stages_prints_what_it_writes(stages: tuple[str, dict[str, Any]]) -> None:
    printed, record = stages
    assert record["benchmark"] == "stages"
    assert record["machine"]["processor"] in printed
    for stage, cost in record["result"]["cpu_ms"].items():
        (line,) = [line for line in printed.splitlines() if line.startswith(stage)]
        assert f"{cost['median']:.2f}" in line


def test_gru_measures_a_step_beside_a_crop(tiny_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "gru.json"
    code, printed, _ = run(
        "gru", "--model", tiny_bundle, "--runs", 2, "--steps", 200, "--json", file
    )
    assert code == 0
    result = json.loads(file.read_text())["result"]
    assert result["steps"] == 200
    assert result["difference"] <= 1e-5
    ratio = result["step_over_frame"]
    assert ratio["low"] >= result["step_us"]["low"] / (result["frame_ms"]["high"] * 1e3) * 0.999
    assert ratio["high"] <= result["step_us"]["high"] / (result["frame_ms"]["low"] * 1e3) * 1.001
    # Many steps in one call share the price of the call.
    assert result["chunk_step_us"]["median"] < result["step_us"]["median"]
    assert "last tenth of the steps over the first" in printed


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["stages", "missing.mp4"], 1, "missing.mp4"),
        (["gru", "--steps", "5"], 2, "steps is 5"),
        (["gru", "--model", "no/such/bundle"], 5, "no/such/bundle"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(
    arguments: list[str], code: int, message: str, tiny_bundle: Path
) -> None:
    model = [] if "--model" in arguments else ["--model", str(tiny_bundle)]
    exit_code, printed, errors = run(*arguments, *model)
    assert exit_code == code
    assert printed == ""
    last = errors.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last


def test_a_clip_without_a_face_cannot_be_measured(tiny_bundle: Path, tmp_path: Path) -> None:
    clip = tmp_path / "grey.mp4"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        image = np.full((120, 160, 3), 128, np.uint8)
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    code, _, errors = run("stages", clip, "--model", tiny_bundle)
    assert code == 1
    assert "no face in it that can be judged" in errors
