"""Placement of a graph's nodes on providers.

onnxruntime silently runs what a provider does not support on the CPU: the session then still names
the provider first. Release 1.24 and newer report the provider of each node; older ones can only
refuse a graph with such a node.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from dfd_edge.errors import ProviderError
from dfd_edge.inference.names import Provider, provider_called

#: Operators that only look at shapes, move values or change their type: providers leave them to
#: the CPU on purpose (shapes are wanted there), or because they do not take bytes (Core ML).
_MOVING = frozenset(
    {
        "Cast",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Gather",
        "Identity",
        "Range",
        "Reshape",
        "Shape",
        "Size",
        "Slice",
        "Squeeze",
        "Unsqueeze",
    }
)


@dataclass(frozen=True, slots=True)
class Placement:
    """The providers that a graph's nodes run on.

    Attributes:
        on_provider: Nodes on the provider asked for.
        elsewhere: Operator and provider of each node that runs on another one.
    """

    on_provider: int
    elsewhere: tuple[tuple[str, str], ...] = ()

    @property
    def computing_elsewhere(self) -> tuple[tuple[str, str], ...]:
        """Those that do more than look at shapes, move values or change their type."""
        return tuple(node for node in self.elsewhere if node[0] not in _MOVING)


def ask_for_placement(ort: Any, options: Any, provider: Provider) -> None:  # noqa: ANN401
    """Sets the session options by which `check_placement` learns of nodes left to the CPU.

    Args:
        ort: The module onnxruntime.
        options: Its session options, before a session is opened with them.
        provider: What the session will be opened on.
    """
    if provider is Provider.CPU:
        return
    if _can_tell(ort.InferenceSession):
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    else:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")


def check_placement(session: Any, provider: Provider, name: str) -> Placement | None:  # noqa: ANN401
    """Checks that a graph computes on the provider that it was opened on.

    Args:
        session: Opened with the options of `ask_for_placement`.
        provider: What it was opened on.
        name: The graph's file, for messages.

    Returns:
        Where its nodes run; None where onnxruntime cannot tell, or need not: on the CPU, and
        before release 1.24, where a session that opened has no node on the CPU.

    Raises:
        ProviderError: A node that computes runs elsewhere, or none runs on the provider.
    """
    if provider is Provider.CPU or not _can_tell(type(session)):
        return None
    nodes = [
        (node.op_type, provider_called(group.ep_name))
        for group in session.get_provider_graph_assignment_info()
        for node in group.get_nodes()
    ]
    placement = placement_of(nodes, provider)
    if not placement.on_provider:
        raise ProviderError(
            f"provider {provider} cannot run: it took none of the {len(nodes)} nodes of {name}: "
            "use --provider auto"
        )
    if left := placement.computing_elsewhere:
        counts = Counter(left).most_common(3)
        listed = ", ".join(f"{count} {op} on {where}" for (op, where), count in counts)
        raise ProviderError(
            f"provider {provider} cannot run: it leaves {len(left)} of the {len(nodes)} nodes of "
            f"{name} to others ({listed}): use another --precision or --provider auto"
        )
    return placement


def placement_of(nodes: list[tuple[str, str]], provider: Provider) -> Placement:
    """Sorts nodes, each an operator and what it runs on, by whether that is the provider."""
    elsewhere = tuple(node for node in nodes if node[1] != provider.value)
    return Placement(len(nodes) - len(elsewhere), elsewhere)


def _can_tell(session_type: Any) -> bool:  # noqa: ANN401
    return hasattr(session_type, "get_provider_graph_assignment_info")


def refused_for_a_node(reason: str) -> bool:
    """Returns whether onnxruntime before 1.24 refused a graph for a node left to the CPU."""
    return "fallback to CPU EP has been explicitly disabled" in reason
