"""Outputs on the pages are those that the commands print with the bundle that ships.

Scores may differ a little from one processor to the next; hashes, sizes and labels may not.
"""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dfd_edge import Detector, FrameResult
from dfd_edge.bundle import DEFAULT_BUNDLE, Bundle
from dfd_edge.sinks.sink import SourceState
from dfd_edge.view.terminal import TerminalView

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
SCORE = 0.02
"""Difference of scores between processors that is let pass."""
_NUMBER = re.compile(r"\d+\.\d+")


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text("utf-8")


def block_of(name: str, command: str) -> list[str]:
    """The lines that a page prints below a command, up to the next command or the block's end."""
    text = page(name)
    assert f"$ {command}\n" in text, f"docs/{name} has no block for {command}"
    below = text.split(f"$ {command}\n", 1)[1]
    return re.split(r"^(?:\$ .*|```)$", below, maxsplit=1, flags=re.MULTILINE)[0].splitlines()


@pytest.fixture(scope="module")
def records() -> list[dict[str, Any]]:
    """The output of `dfd-edge --json samples`."""
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", "--json", "samples"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def near(printed: object, found: object, path: str = "") -> None:
    """Compares JSON values; numbers with fractions may differ a little."""
    if isinstance(printed, dict):
        assert isinstance(found, dict), path
        assert printed.keys() == found.keys(), path
        for key, value in printed.items():
            near(value, found[key], f"{path}.{key}")
    elif isinstance(printed, list):
        assert isinstance(found, list), path
        assert len(printed) == len(found), path
        for number, (left, right) in enumerate(zip(printed, found, strict=True)):
            near(left, right, f"{path}[{number}]")
    elif isinstance(printed, float):
        # Signals have three digits, boxes tenths of pixels.
        assert found == pytest.approx(printed, rel=0.02, abs=SCORE), path
    else:
        assert printed == found, path


def test_the_records_on_the_page_are_those_of_the_sample(records: list[dict[str, Any]]) -> None:
    texts = re.findall(r"```json\n(.*?)\n```", page("outputs.md"), re.DOTALL)
    printed = {row["record"]: row for row in map(json.loads, texts)}
    source = "samples/swapped_astronaut.mp4"
    (run,) = (row for row in records if row["record"] == "run")
    machine = {"versions", "provider", "precision"}
    for row in (printed["run"], run):
        for key in machine:
            row.pop(key)
    near(printed["run"], run)
    (frame,) = (
        row
        for row in records
        if row["record"] == "frame"
        and (row["source"], row["time_s"]) == (source, printed["frame"]["time_s"])
    )
    near(printed["frame"], frame)
    (verdict,) = (row for row in records if row["record"] == "verdict" and row["source"] == source)
    for row in (printed["verdict"], verdict):
        row.pop("realtime_factor")
    near(printed["verdict"], verdict)


def test_the_labels_that_jq_prints_are_those_of_the_samples(records: list[dict[str, Any]]) -> None:
    lines = block_of(
        "outputs.md",
        "jq -r 'select(.record == \"verdict\") | [.label, .p_fake, .source] | @tsv' verdicts.jsonl",
    )
    verdicts = [row for row in records if row["record"] == "verdict"]
    assert len(lines) == len(verdicts)
    for line, verdict in zip(lines, verdicts, strict=True):
        label, p_fake, source = line.split("\t")
        assert (label, source) == (verdict["label"], verdict["source"])
        assert p_fake == "" if verdict["p_fake"] is None else True
        if p_fake:
            assert float(p_fake) == pytest.approx(verdict["p_fake"], abs=SCORE)
    (line,) = block_of(
        "outputs.md",
        'jq -c \'select(.record == "verdict" and .label == "fake") | {source, seconds: '
        "[.people[].intervals[]]}' verdicts.jsonl",
    )
    (fake,) = (verdict for verdict in verdicts if verdict["label"] == "fake")
    seconds = [interval for person in fake["people"] for interval in person["intervals"]]
    printed = json.loads(line)
    assert printed["source"] == fake["source"]
    near([[float(end) for end in interval] for interval in printed["seconds"]], seconds)


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_the_bundle_is_printed_as_it_is(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each printed line, but for those left out at an ellipsis, in the command's own order."""
    pytest.importorskip("keras", reason="keras is not installed, which dfd-export imports")
    from dfd_export.cli import main

    monkeypatch.chdir(ROOT)
    options = " --layers 2" if command == "inspect" else ""
    words = f"{command} runtime/dfd_edge/models/default{options}"
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 0, done.output
    left = iter(_without_differences(line) for line in done.output.splitlines())
    for line in block_of("export.md", f"dfd-export {words}"):
        if line.strip() != "…":
            assert _without_differences(line) in left, line


def test_the_bundle_before_differs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped bundle against the one before it, which git has; a shallow clone does not."""
    pytest.importorskip("keras", reason="keras is not installed, which dfd-export imports")
    from dfd_export.cli import main

    (tree,) = re.findall(
        r"^\$ git archive (\S+) \| tar -x -C before$", page("export.md"), re.MULTILINE
    )
    archive = subprocess.run(["git", "archive", tree], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"git has no {tree} here")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        # Python 3.11.3 and older lack the filter.
        safe = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        tar.extractall(tmp_path / "before", **safe)
    (tmp_path / "runtime").symlink_to(ROOT / "runtime")
    monkeypatch.chdir(tmp_path)
    words = "diff before runtime/dfd_edge/models/default"
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == 1, done.output
    left = iter(done.output.splitlines())
    for line in block_of("export.md", f"dfd-export {words}"):
        if line.strip() not in ("…", ""):
            assert line in left, line


def _without_differences(line: str) -> str:
    """The line of a probe without what it measured, which depends on the processor."""
    if not line.startswith("ok    probe"):
        return line.rstrip()
    return re.sub(r"(step_logit|fake_logit|mean) \d\S*", r"\1 …", line)


def test_the_bundle_that_an_export_writes_is_named() -> None:
    assert f"my-bundle: bundle {Bundle.load().hash} written" in page("export.md")


def test_the_example_s_scores_on_the_page_are_its_own(tmp_path: Path) -> None:
    """Frame and step of the first crops, in Python and in JavaScript alike."""
    graphs = ROOT / "examples" / "graphs"

    def run(*words: object) -> str:
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    run(graphs / "crops.py", DEFAULT_BUNDLE, SAMPLES / "real_hopper.mp4")
    found = run(graphs / "judge.py", DEFAULT_BUNDLE, *sorted(tmp_path.glob("crop*.png")))
    for command in ("python judge.py", "node judge.mjs"):
        lines = block_of("export.md", f"{command} runtime/dfd_edge/models/default crop*.png")
        printed = [line for line in lines if line != "…"]
        assert printed
        for line, judged in zip(printed, found.splitlines(), strict=False):
            own = judged.rpartition("/")[2]
            assert _NUMBER.sub("…", line) == _NUMBER.sub("…", own)
            numbers = [[float(x) for x in _NUMBER.findall(text)] for text in (line, own)]
            assert numbers[0] == pytest.approx(numbers[1], abs=SCORE)


def test_the_terminal_on_the_page_shows_the_samples() -> None:
    """Sample clips in the place of cameras: the lines of the page, scores and bars included."""
    (printed,) = re.findall(r"```\n(FAKE .*?)\n```", page("live-view.md"), re.DOTALL)
    lines = terminal_lines()
    assert len(printed.splitlines()) == len(lines)
    for line, own in zip(printed.splitlines(), lines, strict=True):
        assert _plain(line) == _plain(own)
        scores = [[float(x) for x in _NUMBER.findall(text)] for text in (line, own)]
        assert scores[0] == pytest.approx(scores[1], abs=SCORE)


def _plain(line: str) -> str:
    """A line with every score and every bar alike."""
    return re.sub(r"[▁-█]", "█", _NUMBER.sub("0.00", line))


def terminal_lines() -> list[str]:
    """A terminal of 72 columns at the end of two samples."""
    detector = Detector.load()
    now_s = [0.0]
    view = TerminalView(sys.stdout, now=lambda: now_s[0], colour=False)
    seen: dict[str, list[FrameResult]] = {}
    for name, clip in (("rtsp://camera/1", "swapped_astronaut"), ("camera 0", "real_astronaut")):
        results: list[FrameResult] = []
        detector.analyze(SAMPLES / f"{clip}.mp4", name=name, on_frame=results.append)
        seen[name] = results
    for results in zip(*seen.values(), strict=True):
        now_s[0] = results[0].time_s
        for result, late_ms in zip(results, (112.0, 49.0), strict=True):
            view.add(dataclasses.replace(result, staleness_ms=late_ms))
    states = [SourceState("rtsp://camera/1", dropped=27), SourceState("camera 0", gaps=1)]
    return ["".join(text for text, _ in line).rstrip() for line in view.lines(states, 72, 24)]


if __name__ == "__main__":
    print("\n".join(terminal_lines()))
