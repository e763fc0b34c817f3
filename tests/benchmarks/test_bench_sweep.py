"""`dfd-bench sweep`, and the settings that `dfd-edge --settings` takes from it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from bench_results import read_valid
from click.testing import CliRunner

from dfd_benchmarks.cli import main
from dfd_benchmarks.sweep.measure import knee
from dfd_edge.cli.command import command
from dfd_edge.detector import Detector
from dfd_edge.errors import UsageError
from dfd_edge.inference.machine_settings import MachineSettings

CLIP = Path(__file__).resolve().parents[2] / "samples" / "real_astronaut.mp4"


@pytest.mark.parametrize(
    ("rates", "expected"),
    [
        ({1: 100.0, 2: 104.0, 4: 104.0}, 1),
        ({1: 100.0, 2: 150.0, 4: 155.0, 8: 151.0}, 2),
        ({1: 100.0, 2: 103.0, 4: 130.0}, 4),
        ({1: 100.0}, 1),
    ],
)
def test_the_knee_is_the_largest_batch_that_gains(rates, expected):
    assert knee(rates) == expected


def test_sweep_writes_figures_and_settings_that_the_program_takes(variant_bundle, tmp_path):
    file, settings_file = tmp_path / "sweep.json", tmp_path / "settings.toml"
    arguments = ["sweep", CLIP, "--model", variant_bundle, "--providers", "cpu", "--runs", 1]
    arguments += ["--precisions", "fp32,int8", "--batches", "1,2", "--threads", "1"]
    arguments += ["--slice", 0.02, "--json", file, "--settings", settings_file]
    result = CliRunner().invoke(main, [str(value) for value in arguments])
    assert result.exit_code == 0, result.output
    record = read_valid(file)
    names = {figure["name"] for figure in record["figures"]}
    assert {"cpu.fp32.t1.b1.rate", "cpu.int8.t1.b2.latency", "cpu.int8.t1.whole"} <= names
    settings = MachineSettings.read(settings_file)
    assert record["details"]["recommended"] == f"cpu.{settings.precision}.t1"
    assert settings.difference is None
    detector = Detector.load(variant_bundle, **settings.options)
    assert detector.provider.requested == "cpu"
    assert detector.provider.precision == settings.precision


def judged(settings: Path, bundle: Path, *more: str) -> tuple[dict, str]:
    arguments = [str(CLIP), "--model", str(bundle), "--json", "--settings", str(settings), *more]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[0]), result.stderr


def test_the_command_line_wins_over_the_file(variant_bundle, tmp_path):
    file = tmp_path / "settings.toml"
    MachineSettings.made_here(provider="cpu", precision="int8", threads=1).write(file)
    run, notes = judged(file, variant_bundle)
    assert run["precision"] == "int8"
    assert run["provider"]["requested"] == "cpu"
    assert "note" not in notes
    run, _ = judged(file, variant_bundle, "--precision", "fp32")
    assert run["precision"] == "fp32"
    assert run["provider"]["requested"] == "cpu"


def test_another_machine_is_noted(variant_bundle, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text('precision = "fp32"\n[machine]\nprocessor = "Abacus"\n')
    run, notes = judged(file, variant_bundle)
    assert run["precision"] == "fp32"
    assert "made with processor Abacus" in notes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed = 3\n", "unknown setting 'speed'"),
        ("[machine]\ncolour = 1\n", "unknown setting 'colour'"),
        ('provider = "abacus"\n', "provider is 'abacus'"),
        ("threads = 0\n", "threads is 0"),
        ("threads = true\n", "threads is True"),
        ('precision = "fp99"\n', "precision is 'fp99'"),
        ("provider =\n", "not a file of settings"),
    ],
)
def test_what_is_no_setting_is_refused_in_one_line(text, message, tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        MachineSettings.read(file)
    result = CliRunner().invoke(command, [str(CLIP), "--settings", str(file)])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert message in line
    assert str(file) in line
