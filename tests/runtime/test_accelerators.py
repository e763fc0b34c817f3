"""Each accelerator of the installed onnxruntime gives what the CPU gives: run where there is one.

They need nothing but the runtime and its shipped bundle.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np
import onnxruntime
import pytest

from dfd_edge.bundle import Bundle
from dfd_edge.errors import ProviderError
from dfd_edge.inference.names import BUILDS, Provider
from dfd_edge.inference.provider_options import ProviderOptions
from dfd_edge.inference.session import Session

BUILT_IN = [
    provider.value
    for provider, build in BUILDS.items()
    if provider is not Provider.CPU and build.name in onnxruntime.get_available_providers()
]
on_each = pytest.mark.parametrize("provider", BUILT_IN)
pytestmark = pytest.mark.skipif(
    not BUILT_IN, reason="the installed onnxruntime is built for the CPU only"
)


@cache
def session_on(provider: str, *, cuda_graphs: bool = False) -> Session:
    options = ProviderOptions(cuda_graphs=cuda_graphs)
    return Session.open(Bundle.load(None), provider=provider, precision="fp32", options=options)


def opened(provider: str, *, cuda_graphs: bool = False) -> Session:
    try:
        return session_on(provider, cuda_graphs=cuda_graphs)
    except ProviderError as error:
        pytest.skip(str(error))


def crops_of(count: int) -> np.ndarray:
    size = Bundle.load(None).manifest.frame.input_size
    rng = np.random.default_rng(count)
    coarse = rng.integers(0, 256, (count, size // 8, size // 8, 3)).astype(np.uint8)
    return coarse.repeat(8, axis=1).repeat(8, axis=2)


@on_each
def test_it_runs_or_says_in_one_line_why_not(provider: str):
    try:
        report = session_on(provider).provider
    except ProviderError as error:
        assert str(error).startswith(f"provider {provider} cannot run")
        assert "\n" not in str(error)
    else:
        assert report
        assert report.actual == provider


@on_each
@pytest.mark.parametrize("count", [1, 3, 8, 11])
def test_it_gives_the_cpu_s_logits(provider: str, count: int):
    crops = crops_of(count)
    wanted = session_on("cpu").run_frame(crops)
    found = opened(provider).run_frame(crops)
    # CUDA multiplies fp32 in TF32 by default: 10 bits of mantissa.
    np.testing.assert_allclose(found.fake_logit, wanted.fake_logit, atol=0.05)
    np.testing.assert_allclose(found.features, wanted.features, atol=0.05)
    assert np.ptp(wanted.fake_logit) > 0.05 or count == 1


@on_each
def test_threads_get_their_own_answers(provider: str):
    session = opened(provider)
    batches = [crops_of(1 + n % 4) for n in range(12)]
    wanted = [session.run_frame(crops).fake_logit for crops in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda crops: session.run_frame(crops).fake_logit, batches))
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.skipif("cuda" not in BUILT_IN, reason="the installed onnxruntime has no CUDA")
def test_cuda_graphs_give_what_single_kernels_give():
    plain, graphs = opened("cuda"), opened("cuda", cuda_graphs=True)
    for count in (1, 2, 3, 8, 5, 32, 1):
        crops = crops_of(count)
        np.testing.assert_allclose(
            graphs.run_frame(crops).fake_logit, plain.run_frame(crops).fake_logit, atol=0.01
        )
