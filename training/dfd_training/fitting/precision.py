"""Mixed precision while a frame model is fitted; what is saved is float32.

The backbone computes in float16 and keeps its weights in float32 (Micikevicius et al., ICLR 2018).
Scaling and head compute in float32: a logit of float16 has steps of 0.01 around 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

import keras

from dfd_training.fitting.options import Switch
from dfd_training.models import backbone_of

HALF = "mixed_float16"


def accelerators() -> tuple[str, ...]:
    """The names of the GPUs that the backend sees."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        config = import_module("tensorflow").config
        details = config.experimental.get_device_details
        gpus = config.list_physical_devices("GPU")
        return tuple(str(details(gpu).get("device_name", gpu.name)) for gpu in gpus)
    if backend == "jax":
        devices = import_module("jax").devices()
        return tuple(str(d.device_kind) for d in devices if d.platform != "cpu")
    if backend == "torch":
        cuda = import_module("torch").cuda
        return tuple(str(cuda.get_device_name(i)) for i in range(cuda.device_count()))
    return ()


def is_mixed(wanted: Switch) -> bool:
    """Whether a fit computes in float16: "auto" where the backend sees a GPU."""
    return wanted is Switch.ON or (wanted is Switch.AUTO and bool(accelerators()))


def compute_in_half(model: keras.Model) -> None:
    """Let the backbone of a frame model compute in float16, in this process.

    Call it before the model is compiled: functions that were traced keep their precision.
    """
    _set_policy(backbone_of(model), HALF)


@contextmanager
def in_full(model: keras.Model) -> Iterator[None]:
    """Give a frame model the policy float32 for as long as it is saved, then what it had.

    A `.keras` file carries the policy of each layer, and what is exported computes by it.
    """
    backbone = backbone_of(model)
    mixed = any(layer.compute_dtype == "float16" for layer in backbone.layers)
    if mixed:
        _set_policy(backbone, "float32")
    try:
        yield
    finally:
        if mixed:
            _set_policy(backbone, HALF)


def _set_policy(model: keras.Model, policy: str) -> None:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            _set_policy(layer, policy)
        elif not isinstance(layer, keras.layers.InputLayer):
            layer.dtype_policy = policy
