"""What users and files write, read by our own code: understood or refused, never a traceback."""

from __future__ import annotations

import contextlib
import itertools
import json
import math

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from dfd_edge.bundle.manifest import DecisionSpec, Manifest
from dfd_edge.errors import DfdError, UsageError
from dfd_edge.faces.selection import parse_faces
from dfd_edge.inference.names import Provider
from dfd_edge.inference.provider_options import ProviderOptions
from dfd_edge.schema import SchemaError
from dfd_edge.sources import CameraOptions, RawFormat, SourceItem, expand
from dfd_edge.sources.address import PROTOCOLS, redact
from dfd_edge.sources.frames import MIN_SPACING, Sampler
from dfd_edge.sources.image import read_image
from dfd_edge.sources.options import RAW_PIXELS
from dfd_edge.sources.orientation import Orientation
from dfd_edge.sources.timing import Timeline
from dfd_edge.text import json_line, printable

#: Seconds of the largest time stamp that a container holds.
LARGEST_S = float(1 << 63)
SECRETS = st.text(st.characters(exclude_characters="@/"), min_size=6).map(lambda t: f"s3cr3t{t}")
#: The same examples in each run.
FIXED = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@FIXED
@given(st.sampled_from(sorted(PROTOCOLS)), SECRETS, st.text(max_size=20))
def test_the_password_of_an_address_never_shows(scheme: str, secret: str, rest: str):
    address = f"{scheme}://user:{secret}@camera.local/{rest}"
    assert "s3cr3t" not in redact(address)
    assert "s3cr3t" not in redact(f"{scheme}://camera.local/live?token={secret}")


@FIXED
@given(st.text(max_size=200))
@example("\0")
@example("\ud800")
@example("a/" * 3000)
@example("x" * 5000)
@example("**/*")
def test_any_text_is_a_source_or_refused(text: str):
    with contextlib.suppress(DfdError):
        SourceItem.of(text)
    items, errors = expand([f"/nowhere/{text}"])
    assert not items
    assert all(isinstance(error, DfdError) for error in errors)


@FIXED
@given(st.text() | st.from_regex(r"\A\d{1,6}x\d{1,6}:[a-z0-9]+@\d+(\.\d+)?\Z"))
def test_any_raw_format_is_read_or_refused(text: str):
    with contextlib.suppress(UsageError):
        raw = RawFormat.parse(text)
        assert raw.frame_bytes > 0


@FIXED
@given(
    st.integers(8, 4000),
    st.integers(8, 4000),
    st.sampled_from(RAW_PIXELS),
    st.floats(0.01, 1000).map(lambda fps: float(f"{fps:g}")),
)
def test_a_raw_format_is_read_back_as_it_was_written(width, height, pixels, fps):
    with contextlib.suppress(UsageError):
        raw = RawFormat(width, height, pixels, fps)
        assert RawFormat.parse(str(raw)) == raw


@FIXED
@given(st.text() | st.from_regex(r"\A\d{1,6}[x*]\d{1,6}\Z"))
def test_any_camera_size_is_read_or_refused(text: str):
    with contextlib.suppress(UsageError):
        width, height = CameraOptions.size(text)
        CameraOptions(width=width, height=height)


@FIXED
@given(st.text() | st.floats().map(str) | st.integers().map(str))
def test_any_choice_of_faces_is_read_or_refused(text: str):
    with contextlib.suppress(UsageError):
        faces = parse_faces(text)
        assert faces in ("all", "largest") or math.isfinite(faces)


@FIXED
@given(st.text(), st.sampled_from(list(Provider)))
def test_any_device_is_known_or_refused(text: str, provider: Provider):
    with contextlib.suppress(UsageError):
        ProviderOptions(device=text).check(provider)


@pytest.mark.parametrize("kind", [Manifest, DecisionSpec])
@FIXED
@given(st.text() | JSON.map(json.dumps))
@example("[" * 100_000)
@example("9" * 5000)
@example('{"schema_version": ' + "9" * 5000 + "}")
@example('{"schema_version": 1e999}')
def test_any_manifest_is_read_or_refused_in_a_line(kind, text: str):
    with pytest.raises(SchemaError) as caught:
        kind.from_json(text)
    assert "\n" not in str(caught.value)


@FIXED
@given(
    st.floats(0.01, 1000),
    st.none() | st.floats(-LARGEST_S, LARGEST_S),
    st.none() | st.floats(0, LARGEST_S),
    st.lists(st.none() | st.floats(-LARGEST_S, LARGEST_S) | st.floats(-10, 10), max_size=30),
)
def test_the_time_of_a_recording_runs_forward_whatever_its_stamps(rate, start_s, end_s, stamps):
    timeline = Timeline(rate, start_s, end_s)
    times_s = [timeline.place(stamp) for stamp in stamps]
    assert all(math.isfinite(time_s) for time_s in times_s)
    assert all(b >= a - 0.5 for a, b in itertools.pairwise(times_s))


@FIXED
@given(st.lists(st.floats(-1e9, 1e9), min_size=1), st.floats(0.1, 100))
def test_due_frames_are_never_close_together(times_s, rate_hz):
    sampler = Sampler(rate_hz)
    due_s = [time_s for time_s in sorted(times_s) if sampler.is_due(time_s)]
    least_s = 0.99 * MIN_SPACING / rate_hz - 1e-6
    assert all(b - a >= least_s for a, b in itertools.pairwise(due_s))


@FIXED
@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1), min_size=9, max_size=9))
def test_any_display_matrix_is_one_of_eight(numbers):
    orientation = Orientation.from_matrix(np.array(numbers, dtype=np.int32))
    assert orientation.degrees in (0, 90, 180, 270)


@FIXED
@given(st.dictionaries(st.text(), st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_any_record_is_one_line_of_json(record):
    line = json_line(record)
    assert "\n" not in line.rstrip("\n")
    line.encode("utf-8")
    assert len(json.loads(line)) <= len(record)


@FIXED
@given(st.text())
def test_any_name_is_fit_for_a_terminal(text: str):
    assert all(character.isprintable() for character in printable(text))


@FIXED
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM\0\0\0\0\0\0"]),
    st.binary(max_size=300),
)
def test_any_picture_is_read_or_refused(tmp_path_factory, head: bytes, body: bytes):
    path = tmp_path_factory.getbasetemp() / "picture"
    path.write_bytes(head + body)
    with contextlib.suppress(DfdError):
        assert read_image(path).ndim == 3
