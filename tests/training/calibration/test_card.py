"""The card and the decision of a model import in one direction."""

from __future__ import annotations

import ast
from pathlib import Path

import dfd_training

ROOT = Path(dfd_training.__file__).parent
MAY_IMPORT = ("calibration", "recipes", "cli.py")
"""Rooms and files of training that may import from calibration."""


def imported(path: Path) -> set[str]:
    """Modules that a file imports, inside functions too."""
    nodes = list(ast.walk(ast.parse(path.read_text("utf-8"))))
    found = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return found | {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}


def test_what_calibration_uses_does_not_import_it() -> None:
    for path in ROOT.rglob("*.py"):
        if path.relative_to(ROOT).parts[0] not in MAY_IMPORT:
            users = [name for name in imported(path) if name.startswith("dfd_training.calibration")]
            assert not users, f"{path} imports {users}"


def test_card_and_decision_stand_together_without_a_circle() -> None:
    names = {path.stem: imported(path) for path in (ROOT / "calibration").glob("*.py")}

    def reached(name: str) -> set[str]:
        direct = {n.rpartition(".")[2] for n in names[name] if "dfd_training.calibration" in n}
        return direct.union(*(reached(other) for other in direct & set(names)))

    assert "card" in names
    for name in names:
        assert name not in reached(name), name
