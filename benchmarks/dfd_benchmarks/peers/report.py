"""What people read of the peers."""

from __future__ import annotations

from collections.abc import Iterator

from dfd_benchmarks.report import figure_lines
from dfd_benchmarks.results import Result


def peers_lines(result: Result) -> Iterator[str]:
    """Tell what ran and what did not, and the figures."""
    told, details = result.arguments, result.details
    yield (
        f"{told['network']} at {told['size']} px, weights: {details['weights']}; "
        f"{told['frames']} frames of {details['clip']}"
    )
    if told["loop"]:
        differences = ", ".join(f"{k} {v:.1e}" for k, v in details["logit_difference"].items())
        yield (
            f"TensorFlow's threads: {details['tensorflow_threads']}; the clip's logit differs: "
            f"{differences}"
        )
    else:
        for name, engine in details["engines"].items():
            yield (
                f"  {name} {engine['version']}, threads: {engine['threads']}, differs by "
                f"{engine['difference']:.1e}"
            )
        for name, reason in details["skipped"].items():
            yield f"  {name} left out: {reason}"
        if details["int8_instructions"]:
            yield f"  instructions for int8: {details['int8_instructions']}"
    yield from figure_lines(result)
