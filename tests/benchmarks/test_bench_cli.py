"""`dfd-bench` on a small clip and a small bundle: every figure is there and they fit together."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from skimage import data

from dfd_benchmarks.cli import main

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
