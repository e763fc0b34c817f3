"""How the packages hang together: arrows point one way, and no imports go round in a circle.

Imports inside functions count like those at the top; those for type checkers alone do not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: Folder and package, each importing those before it and none behind it.
PACKAGES = {
    "dfd_edge": ROOT / "runtime",
    "dfd_training": ROOT / "training",
    "dfd_export": ROOT / "export",
    "dfd_benchmarks": ROOT / "benchmarks",
}


def modules_of(package: str) -> dict[str, Path]:
    """The package's files by the names of their modules."""
    root = PACKAGES[package]
    files = {}
    for file in sorted((root / package).rglob("*.py")):
        parts = file.relative_to(root).with_suffix("").parts
        files[".".join(part for part in parts if part != "__init__")] = file
    return files


def imported(tree: ast.AST) -> Iterator[str]:
    """What code imports: a module, or for `from A import B` both A and A.B."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from imported(other)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        else:
            yield from imported(node)


def arrows(modules: dict[str, Path]) -> dict[str, set[str]]:
    """By module, those of the same package that it imports."""
    found = {}
    for module, file in modules.items():
        names = set(imported(ast.parse(file.read_text("utf-8"))))
        inside = {name if name in modules else name.rpartition(".")[0] for name in names}
        found[module] = {name for name in inside if name in modules} - {module}
    return found


def circle_of(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle, in the order in which each imports the next; none without one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_imports_go_round_in_a_circle(package):
    circle = circle_of(arrows(modules_of(package)))
    assert not circle, " imports ".join(circle)


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_point_one_way(package):
    order = list(PACKAGES)
    above = set(order[order.index(package) + 1 :])
    for module, file in modules_of(package).items():
        tops = {name.partition(".")[0] for name in imported(ast.parse(file.read_text("utf-8")))}
        assert not tops & above, f"{module} imports {', '.join(sorted(tops & above))}"


@pytest.mark.parametrize(
    ("sources", "circle"),
    [
        ({"a": "import p.b", "b": "import p.c", "c": ""}, None),
        ({"a": "from p import b", "b": "def f():\n    from p.a import g"}, {"p.a", "p.b"}),
        (
            {"a": "from p.b import x", "b": "import p.c", "c": "from p import a"},
            {"p.a", "p.b", "p.c"},
        ),
        (
            {
                "a": "if TYPE_CHECKING:\n    from p import b\nelse:\n    x = 1",
                "b": "from p import a",
            },
            None,
        ),
    ],
)
def test_a_circle_would_be_seen(tmp_path, sources, circle):
    modules = {}
    for name, text in sources.items():
        modules[f"p.{name}"] = tmp_path / f"{name}.py"
        modules[f"p.{name}"].write_text(text)
    assert set(circle_of(arrows(modules))) == (circle or set())
