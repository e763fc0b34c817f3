"""Which processor a graph runs on: the providers of onnxruntime, their options and faults.

`onnxruntime` is imported inside functions, so that `import dfd_edge` works without it.
"""

from dfd_edge.providers.faults import not_built_in
from dfd_edge.providers.names import Provider, parse_provider
from dfd_edge.providers.opening import (
    Opened,
    open_best,
    open_graph,
    open_session,
    probe_providers,
)
from dfd_edge.providers.options import FrameHints, ProviderOptions
from dfd_edge.providers.report import ProviderProbe, ProviderReport
from dfd_edge.providers.wheels import installed_wheels, load_onnxruntime, quiet_onnxruntime

__all__ = [
    "FrameHints",
    "Opened",
    "Provider",
    "ProviderOptions",
    "ProviderProbe",
    "ProviderReport",
    "installed_wheels",
    "load_onnxruntime",
    "not_built_in",
    "open_best",
    "open_graph",
    "open_session",
    "parse_provider",
    "probe_providers",
    "quiet_onnxruntime",
]
