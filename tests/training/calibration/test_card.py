"""The card says what a model was fitted on; it and the decision import in one direction."""

from __future__ import annotations

import ast
from pathlib import Path

import dfd_training
from dfd_training.calibration.card import make_card
from dfd_training.data.store import CropStore

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


def test_the_card_says_whether_a_model_of_a_fold_ships(small_store: CropStore) -> None:
    of_a_fold = make_card(small_store, {}, licence="none")
    of_all = make_card(small_store, {}, licence="none", whole=True, cameras=True)
    assert "were fitted without the first fold" in of_a_fold.protocol
    assert "Rows marked val were judged once" in of_a_fold.protocol
    assert "webcams" not in of_a_fold.protocol
    assert "without the first fold" not in of_all.protocol
    assert "was fitted on the rows marked train and val" in of_all.protocol
    assert "Rows marked train were judged once" in of_all.protocol
    assert "recordings by webcams and phones as much as all others" in of_all.protocol
    for card, marks in ((of_a_fold, ["train"]), (of_all, ["train", "val"])):
        crops = small_store.index["split"].isin(marks).sum()
        assert card.training_data.startswith(f"{crops} face crops from ")
