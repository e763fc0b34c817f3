"""Sessions in environments of their own: the test matrix, audit, licences and bill of materials.

`make test-matrix` runs the runtime's tests with the oldest and the newest versions of its
dependencies that pyproject.toml allows, without TensorFlow and Keras. `make audit` and `make
licences` look at everything that runs beside judging too, `make sbom` at everything that
`pip install dfd-edge[cpu,report]` installs.
"""

from __future__ import annotations

import os
import re
import shutil
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.tags = ["matrix"]

ROOT = Path(__file__).resolve().parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
RUNTIME = [*PROJECT["dependencies"], *EXTRAS["cpu"], *EXTRAS["report"]]
#: Everything that parses what strangers send, or serves them.
EXPOSED = RUNTIME + [
    requirement
    for extra in ("provenance", "serve", "archive", "heic")
    for requirement in EXTRAS[extra]
    if not requirement.startswith("dfd-edge")
]
#: Requirements of the matrix's tests.
TESTED = [*RUNTIME, *EXTRAS["provenance"]]
#: Python and the end of the ranges; the first two are what CI runs.
CORNERS = (("3.11", "oldest"), ("3.13", "newest"), ("3.12", "newest"))
#: Required; the other interpreters are skipped where they are missing.
NEEDED = "3.11"
#: What the tests themselves need.
TOOLS = (
    *("pytest>=8.3", "pytest-timeout>=2.3", "hypothesis>=6.100", "jsonschema>=4.18"),
    *("imageio-ffmpeg>=0.5", "onnx>=1.17", "pillow>=11.3", "scikit-image"),
)


def test_file(name: str) -> str:
    """The one test file of this name, in whatever folder of tests/ it is."""
    (path,) = (ROOT / "tests").rglob(f"test_{name}.py")
    return str(path.relative_to(ROOT))


#: All that touches a dependency: decoding, detection, both graphs, outputs, the command.
TESTS = [
    test_file(name)
    for name in (
        *("decoding", "skimming", "sources", "images", "raw", "interrupting"),
        *("face_detector", "tracker", "stream", "threads", "outputs", "report_parts"),
        *("cli", "doctor", "imports", "privacy"),
        *("manifests", "tampered", "bounds", "marks"),
    )
]


def interpreter(version: str) -> str | None:
    """Finds a Python of this version in pyenv or on the PATH; None if there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [
        path
        for path in pyenv.glob(f"{version}.*/bin/python")
        if re.fullmatch(rf"{re.escape(version)}\.\d+", path.parents[1].name)
    ]
    newest = max(found, key=lambda path: int(path.parents[1].name.split(".")[2]), default=None)
    return str(newest) if newest else shutil.which(f"python{version}")


def oldest(requirements: list[str]) -> list[str]:
    """Returns the requirements pinned to the lower ends of their ranges."""
    pinned = []
    for requirement in requirements:
        name, bound = re.match(r"([\w-]+)>=([\w.]+)", requirement).groups()  # type: ignore[union-attr]
        pinned.append(f"{name}=={bound}")
    return pinned


def corner(version: str, end: str) -> None:
    """Registers the session of one corner of the matrix."""
    python = interpreter(version)

    @nox.session(name=f"{end}-{version}", python=python or False, tags=["matrix"])
    def run(session: nox.Session) -> None:
        if python is None:
            advice = f"no Python {version} on the PATH or in pyenv: `pyenv install {version}`"
            if version == NEEDED:
                session.error(advice)
            session.skip(advice)
        wanted = oldest(TESTED) if end == "oldest" else TESTED
        session.install("--upgrade", *wanted, *TOOLS)
        session.install("--no-deps", ".")
        session.run("python", "-m", "pip", "list", "--disable-pip-version-check")
        session.env["PYTHONPATH"] = ""
        session.run("python", "-m", "pytest", "-q", *(session.posargs or TESTS))


for version, end in CORNERS:
    corner(version, end)


@nox.session
def audit(session: nox.Session) -> None:
    """Looks up known vulnerabilities of the runtime's dependencies; fails if it cannot."""
    session.install("pip-audit>=2.7")
    session.run("pip-audit", "--strict", "--path", lean(session, "purelib", EXPOSED))


@nox.session
def licences(session: nox.Session) -> None:
    """Lists the licences of the runtime's dependencies; fails on an unknown one."""
    session.install("pip-licenses>=5")
    scripts = lean(session, "scripts", EXPOSED)
    session.run(
        *("pip-licenses", f"--python={scripts}/python", "--format=markdown"),
        *("--with-urls", "--order=license", "--fail-on=UNKNOWN"),
    )


@nox.session
def sbom(session: nox.Session) -> None:
    """Writes the wheel and its bill of materials (CycloneDX) to dist/."""
    session.install("build>=1.2", "cyclonedx-bom>=7")
    dist = ROOT / "dist"
    session.run("python", "-m", "build", "--wheel", "--outdir", str(dist), str(ROOT))
    scripts = lean(session, "scripts", RUNTIME)
    # By name: a path to install from would stand in the list.
    session.run(
        *(f"{scripts}/python", "-m", "pip", "install", "-q", "--no-deps", "--no-index"),
        *("--find-links", str(dist), f"dfd-edge=={PROJECT['version']}"),
        external=True,
    )
    session.run(
        *("cyclonedx-py", "environment", f"{scripts}/python", "--pyproject", "pyproject.toml"),
        *("--output-reproducible", "--of", "JSON"),
        *("--output-file", str(dist / f"dfd_edge-{PROJECT['version']}.cdx.json")),
    )


def lean(session: nox.Session, path: str, requirements: list[str]) -> str:
    """Creates an environment with these requirements alone; returns one of its folders."""
    folder = Path(session.create_tmp()) / "lean"
    session.run("python", "-m", "venv", "--clear", str(folder))
    python = folder / "bin" / "python"
    session.run(str(python), "-m", "pip", "install", "-q", *requirements, external=True)
    ask = f"import sysconfig; print(sysconfig.get_path({path!r}))"
    return str(session.run(str(python), "-c", ask, external=True, silent=True)).strip()
