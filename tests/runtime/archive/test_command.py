"""The command line of archives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="pyarrow is not installed: it is of the extra `archive`")
pytest.importorskip("fsspec", reason="fsspec is not installed: it is of the extra `archive`")

from archive_campaign import rows_of
from click.testing import CliRunner, Result

from dfd_edge.archive.cli import archive


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(archive, [str(argument) for argument in arguments])


def test_the_program_passes_its_first_argument_on():
    done = subprocess.run(
        [sys.executable, "-m", "dfd_edge", "archive", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("Usage: dfd-edge archive [OPTIONS] COMMAND")


def test_a_folder_is_judged_into_results_with_a_page(media: Path, tmp_path: Path):
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    out = tmp_path / "results"
    done = invoke(media / "face0.png", media / "broken.mp4", "--out", out, "--jobs", "1")
    assert done.exit_code == 1, "a clip has no verdict"
    assert "2 clips judged, 1 failed, 0 copies, 0 done before" in done.output
    assert (out / "index.html").is_file()
    assert len(rows_of(out)) == 2
    again = invoke(media / "face0.png", media / "broken.mp4", "--out", out, "--jobs", "1")
    assert again.exit_code == 0
    assert "0 clips judged, 0 failed, 0 copies, 2 done before" in again.output
    compared = invoke("compare", out, out)
    assert compared.exit_code == 0
    assert "2 contents in both" in compared.output


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--shard", "5/4"), "'5/4': give NUMBER/COUNT such as 1/4"),
        (("--since", "yesterday"), "'yesterday': give a date or a time"),
        (("--rate", "0"), "--rate 0.0: give a number from 0.001"),
        (("--scan", "--frames", "3"), "--scan chooses its frames itself"),
        (("--faces", "none"), "none"),
        (("--device", "1"), "device"),
        (("--trust-list", "own.pem"), "--trust-list own.pem is for --provenance"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_wrong_options_are_refused_in_a_line(media: Path, tmp_path: Path, options, error):
    done = invoke(media, "--out", tmp_path / "out", *options)
    assert done.exit_code == 2
    assert error in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


def test_inputs_that_are_missing_are_refused(tmp_path: Path):
    done = invoke(tmp_path / "none", "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "no such file or folder" in done.output


def test_no_results_to_compare_are_refused(tmp_path: Path):
    done = invoke("compare", tmp_path, tmp_path)
    assert done.exit_code == 2
    assert "no results" in done.output


def test_without_ray_the_extra_is_named(media: Path, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    done = invoke(media, "--out", tmp_path / "out", "--ray", "local")
    assert done.exit_code == 2
    assert "pip install 'dfd-edge[archive-ray]'" in done.output


def test_without_pyarrow_the_extra_is_named(media: Path, tmp_path: Path):
    program = (
        "import sys; sys.modules['pyarrow'] = None\n"
        f"sys.argv = ['dfd-edge', 'archive', {str(media)!r}, '--out', {str(tmp_path / 'out')!r}]\n"
        "from dfd_edge.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'dfd-edge[archive]'" in done.stderr
    assert "Traceback" not in done.stderr
