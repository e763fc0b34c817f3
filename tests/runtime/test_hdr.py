"""HDR and wide-gamut video: shown and judged as the SDR video it was made from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from clip_maker import run_ffmpeg

import dfd_edge
from dfd_edge import Detector
from dfd_edge.sources import VideoFile
from dfd_edge.sources.conversion import ToneMapper
from dfd_edge.sources.frames import Sampler

SAMPLE = Path(dfd_edge.__file__).parents[2] / "samples" / "real_hopper.mp4"
ENCODING = ["-c:v", "libx265", "-preset", "ultrafast", "-crf", "8", "-pix_fmt", "yuv420p10le"]
ENCODING += ["-x265-params", "log-level=error"]
PQ, HLG = 16, 18
BT709, BT2020 = 1, 9


def read(path):
    with VideoFile(path) as video:
        return [frame.image for frame in video.frames(Sampler(1.0))]


@pytest.fixture(scope="module")
def sdr(tmp_path_factory):
    path = tmp_path_factory.mktemp("hdr") / "sdr.mp4"
    run_ffmpeg("-i", SAMPLE, "-t", "1.2", *ENCODING, path)
    return path


@pytest.fixture(scope="module", params=["smpte2084", "arib-std-b67", "bt709"])
def converted(request, sdr):
    """The clip in PQ, HLG and wide gamut, by zimg: SDR white at 203 cd/m², as BT.2408 has it."""
    if b"zscale" not in run_ffmpeg("-hide_banner", "-filters"):
        pytest.skip("this ffmpeg was built without zimg")
    path = sdr.with_name(f"{request.param}.mp4")
    given = "zscale=tin=bt709:pin=bt709:min=smpte170m:rin=limited:npl=203"
    made = f"{given}:t={request.param}:p=bt2020:m=bt2020nc,format=yuv420p10le"
    run_ffmpeg("-i", sdr, "-vf", made, *ENCODING, path)
    return path


def test_the_pictures_are_those_of_the_sdr_video(sdr, converted):
    for image, wanted in zip(read(converted), read(sdr), strict=True):
        difference = image.astype(int) - wanted
        assert np.abs(difference).mean() < 7.0
        assert np.abs(difference.mean(axis=(0, 1))).max() < 4.0


def test_the_score_is_that_of_the_sdr_video(sdr, converted):
    detector = Detector.load()
    scores = []
    for path in (sdr, converted):
        results = []
        verdict = detector.analyze(path, on_frame=results.append)
        assert verdict.coverage == 1.0
        scores.append(np.mean([person.p_frame for r in results for person in r.people]))
        # The noise of HDR is on another scale: it is not measured.
        hdr = path is converted and not path.stem.startswith("bt709")
        assert (verdict.people[0].signals.measured_steps == 0) == hdr
    assert scores[1] == pytest.approx(scores[0], abs=0.1)


@pytest.mark.parametrize("transfer", [PQ, HLG])
def test_grey_stays_grey_and_brighter_stays_brighter(transfer):
    ramp = np.repeat(np.linspace(0, 65535, 256).astype(np.uint16)[None, :, None], 3, axis=2)
    image = ToneMapper(transfer, BT2020).apply(np.repeat(ramp, 40, axis=0))
    assert np.ptp(image.astype(int), axis=2).max() <= 1
    assert (np.diff(image[0, :, 1].astype(int)) >= 0).all()
    assert image[0, 0, 1] == 0
    assert image[39, -1, 1] == 255


@pytest.mark.parametrize(
    ("transfer", "code", "shown"),
    [
        (PQ, 0.0, 0.0),
        (PQ, 0.4404, 50.0 / 203.0),  # 50 cd/m², below the knee
        (HLG, 0.5, 1000.0 * (1 / 12) ** 1.2 / 203.0),
        (PQ, 0.7518, 1.0),  # 1000 cd/m²
        (HLG, 1.0, 1.0),
    ],
)
def test_known_levels(transfer, code, shown):
    """Codes of BT.2100 for levels of light."""
    coded = np.full((16, 16, 3), round(code * 65535), np.uint16)
    image = ToneMapper(transfer, BT2020).apply(coded)
    assert image[0, 0] == pytest.approx([255 * shown ** (1 / 2.4)] * 3, abs=2)


def test_only_hdr_and_wide_gamut_are_mapped():
    assert ToneMapper.of(1, BT709) is None
    assert ToneMapper.of(2, 2) is None
    assert ToneMapper.of(13, BT2020) is None
    assert ToneMapper.of(PQ, 2) is not None
    assert ToneMapper.of(14, BT2020) is not None
