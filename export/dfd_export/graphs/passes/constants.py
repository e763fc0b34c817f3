"""Constants that are there twice."""

from __future__ import annotations

from dfd_export.graphs.passes.editor import GraphEditor


def merge_constants(editor: GraphEditor) -> bool:
    """Constants with the same numbers and shape: one of them."""
    first: dict[tuple[str, tuple[int, ...], bytes], str] = {}
    same = {
        name: first.setdefault((str(array.dtype), array.shape, array.tobytes()), name)
        for name, array in editor.constants().items()
    }
    changed = False
    for node in editor.nodes:
        for index, name in enumerate(node.input):
            if same.get(name, name) != name:
                editor.set_input(node, index, same[name])
                changed = True
    return changed
