"""What the wheel carries and what an installation brings."""

from __future__ import annotations

import ast
import configparser
import email
import email.message
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "dfd_edge": "runtime",
    "dfd_training": "training",
    "dfd_export": "export",
    "dfd_benchmarks": "benchmarks",
}
MODELS = ROOT / "runtime" / "dfd_edge" / "models"


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    """The project table of pyproject.toml."""
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built offline from this checkout."""
    return zipfile.ZipFile(build_wheel(ROOT, tmp_path_factory.mktemp("dist")))


def build_wheel(root: Path, out: Path, **environment: str) -> Path:
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)],
        cwd=root,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (path,) = out.glob("dfd_edge-*.whl")
    return path


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> email.message.Message:
    """The wheel's METADATA."""
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return email.message_from_bytes(wheel.read(name))


def test_wheel_holds_every_module_of_the_four_packages(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    for package, folder in PACKAGES.items():
        sources = (ROOT / folder / package).rglob("*.py")
        expected = {path.relative_to(ROOT / folder).as_posix() for path in sources}
        assert f"{package}/__init__.py" in expected
        assert expected <= names
        assert f"{package}/py.typed" in names


def test_wheel_holds_nothing_else(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == set(PACKAGES)
    assert not [name for name in wheel.namelist() if name.endswith((".pyc", ".partial"))]


def test_wheel_holds_every_shipped_model(wheel: zipfile.ZipFile) -> None:
    shipped = [path for path in MODELS.rglob("*") if path.is_file()]
    assert {path.name for path in MODELS.joinpath("face").iterdir()} >= {
        "NOTICE",
        "blazeface_full_range.onnx",
        "blazeface_full_range_windows.onnx",
        "face_mesh_468.onnx",
    }
    for path in shipped:
        name = path.relative_to(ROOT / "runtime").as_posix()
        assert wheel.read(name) == path.read_bytes()


def test_wheel_holds_the_default_bundle_whole(wheel: zipfile.ZipFile) -> None:
    from dfd_edge.bundle.manifest import Manifest

    if not (MODELS / "default").is_dir():
        pytest.skip("models/default is not in this checkout: no bundle has been exported into it")
    folder = "dfd_edge/models/default"
    manifest = Manifest.from_json(wheel.read(f"{folder}/manifest.json").decode())
    sizes = {name: wheel.getinfo(f"{folder}/{name}").file_size for name in manifest.files}
    assert sizes == {name: entry.size for name, entry in manifest.files.items()}
    assert {"frame.onnx", "sequence.onnx", "CARD.md"} <= set(sizes) | {
        path.name for path in (MODELS / "default").iterdir()
    }
    assert sum(sizes.values()) <= 25e6


def test_wheel_holds_the_clip_that_the_doctor_judges(wheel: zipfile.ZipFile) -> None:
    from dfd_edge.cli.doctor import CLIP

    assert wheel.read(CLIP.relative_to(ROOT / "runtime").as_posix()) == CLIP.read_bytes()
    assert CLIP.stat().st_size < 50_000


def test_wheel_holds_the_trust_lists_with_their_licence(wheel: zipfile.ZipFile) -> None:
    folder = ROOT / "runtime/dfd_edge/provenance/trust_list"
    assert {path.name for path in folder.iterdir()} == {
        *("C2PA-TRUST-LIST.pem", "C2PA-TSA-TRUST-LIST.pem", "LICENSE", "NOTICE")
    }
    for path in folder.iterdir():
        assert wheel.read(path.relative_to(ROOT / "runtime").as_posix()) == path.read_bytes()


def test_the_same_sources_give_the_same_wheel(tmp_path: Path) -> None:
    """Elsewhere, at another time and with other permissions; SOURCE_DATE_EPOCH sets the date."""
    copy = tmp_path / "elsewhere"
    ignored = shutil.ignore_patterns("__pycache__", "*.partial")
    for folder in PACKAGES.values():
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE", ".gitignore"):
        shutil.copy(ROOT / name, copy)
    for path in copy.rglob("*.py"):
        os.utime(path, (1e9, 1e9))
        path.chmod(0o600)
    epoch = str(1_700_000_000)
    first, again, later = (
        build_wheel(root, tmp_path / name, SOURCE_DATE_EPOCH=date).read_bytes()
        for root, name, date in (
            (ROOT, "first", epoch),
            (copy, "again", epoch),
            (copy, "later", str(1_800_000_000)),
        )
    )
    assert hashlib.sha256(first).digest() == hashlib.sha256(again).digest()
    assert first != later


@pytest.mark.parametrize("name", ["LICENSE", "NOTICE"])
def test_wheel_carries_licence_and_notice(name: str, wheel: zipfile.ZipFile) -> None:
    (found,) = [entry for entry in wheel.namelist() if entry.endswith(f"licenses/{name}")]
    assert wheel.read(found) == (ROOT / name).read_bytes()


def test_licence_is_apache_2(metadata: email.message.Message) -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert metadata["License-Expression"] == "Apache-2.0"


def test_the_package_knows_its_version(project: dict[str, Any]) -> None:
    import dfd_edge

    assert dfd_edge.__version__ == project["version"]


def test_wheel_installs_the_commands(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    parser = configparser.ConfigParser()
    parser.read_string(wheel.read(name).decode())
    scripts = dict(parser["console_scripts"])
    assert set(scripts) == {"dfd-edge", "dfd-train", "dfd-export", "dfd-bench"}
    for target in scripts.values():
        module, _, function = target.partition(":")
        path = module.replace(".", "/")
        (file,) = {f"{path}.py", f"{path}/__init__.py"} & set(wheel.namelist())
        source = wheel.read(file).decode()
        assert re.search(rf"^def {function}\(", source, re.MULTILINE), target


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_no_ignore_rule_matches_a_shipped_model(tmp_path: Path) -> None:
    # Asked in a bare copy of the rules: git answers nothing for files that it tracks already.
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    shutil.copy(ROOT / ".gitignore", tmp_path)
    shipped = {path.relative_to(ROOT).as_posix() for path in MODELS.rglob("*") if path.is_file()}
    default = "runtime/dfd_edge/models/default"
    shipped |= {
        f"{default}/{name}"
        for name in ("manifest.json", "frame.onnx", "frame.int8.onnx", "sequence.onnx", "CARD.md")
    }
    asked = subprocess.run(
        ["git", "-c", "core.excludesFile=", "check-ignore", "--stdin", "-v"],
        cwd=tmp_path,
        input="\n".join([*sorted(shipped), "data/known.csv"]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert [line.split("\t")[1] for line in asked.stdout.splitlines()] == ["data/known.csv"]


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    """From benchmarks to export to training to the runtime, never back."""
    names = list(PACKAGES)
    later = set(names[names.index(package) + 1 :])
    for path in (ROOT / PACKAGES[package]).rglob("*.py"):
        imported = set()
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                imported.add(node.module.split(".")[0])
        assert not imported & later, path


def closure(project: dict[str, Any], extra: str) -> set[str]:
    """Names of all distributions that an extra asks for, other extras of ours followed."""
    names: set[str] = set()
    wanted = list(project["optional-dependencies"][extra]) + list(project["dependencies"])
    while wanted:
        requirement = wanted.pop()
        own = re.match(r"dfd-edge\[([\w,-]+)\]", requirement)
        if own:
            for other in own[1].split(","):
                wanted += project["optional-dependencies"][other]
        else:
            names.add(re.split(r"[\[<>=!~; ]", requirement)[0].lower())
    return names


def test_cpu_installation_is_lean(project: dict[str, Any]) -> None:
    assert closure(project, "cpu") == {"numpy", "opencv-python", "av", "click", "onnxruntime"}


def test_base_installation_names_no_onnxruntime(project: dict[str, Any]) -> None:
    # The two wheels overwrite each other, so neither may come unasked.
    assert not [name for name in project["dependencies"] if name.startswith("onnxruntime")]
    assert "onnxruntime" not in closure(project, "gpu")
    for extra in project["optional-dependencies"]:
        assert not {"onnxruntime", "onnxruntime-gpu"} <= closure(project, extra)


def test_only_training_brings_keras(project: dict[str, Any]) -> None:
    heavy = {"tensorflow", "keras", "pandas", "scikit-learn"}
    for extra in ("cpu", "gpu", "report"):
        assert not closure(project, extra) & heavy
    assert closure(project, "train") >= heavy


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "Makefile", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.mark.parametrize("document", documents(), ids=lambda path: path.name)
def test_documents_name_only_extras_that_exist(document: Path, project: dict[str, Any]) -> None:
    text = document.read_text()
    named = {
        extra.strip()
        for group in re.findall(r"(?:dfd-edge|'\.|\"\.|(?<=\s)\.)\[([\w, -]+)\]", text)
        for extra in group.split(",")
    }
    named |= set(re.findall(r"\$\(INSTALLED\)-(\w+)", text))
    assert named <= set(project["optional-dependencies"])


def test_makefile_installs_the_lean_set_for_the_demo() -> None:
    rule = re.search(r"^demo:(.*)##", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert rule is not None
    assert rule[1].split() == ["$(INSTALLED)-cpu"]
