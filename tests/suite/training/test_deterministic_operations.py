"""Whether the suite's own operations have a deterministic algorithm on a GPU, by the list in PyTorch's documentation.

The operations are recorded on a CPU, where the PyTorch implementations of all kernels run, as on a GPU without Triton.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from backbones.mixers import registry
from suite.training.run import start
from tests.backbones.small_models import BACKBONES
from tests.suite.tiny import RECALL, TASKS, tiny_config

#: ATen's names of what `torch.use_deterministic_algorithms` refuses on CUDA tensors (PyTorch 2.14).
_LIST = """
    avg_pool3d_backward _adaptive_avg_pool2d_backward _adaptive_avg_pool3d_backward adaptive_max_pool2d_backward
    adaptive_max_pool3d_backward fractional_max_pool2d_backward fractional_max_pool3d_backward max_unpool2d max_unpool3d
    upsample_linear1d_backward upsample_bilinear2d_backward _upsample_bilinear2d_aa_backward upsample_bicubic2d_backward
    _upsample_bicubic2d_aa_backward upsample_trilinear3d_backward reflection_pad1d_backward reflection_pad2d_backward
    reflection_pad3d_backward nll_loss2d_forward nll_loss2d_backward _ctc_loss_backward _embedding_bag_backward put put_
    histc bincount median kthvalue grid_sampler_2d_backward grid_sampler_3d_backward scatter_reduce scatter_reduce_
"""
REFUSED_ON_CUDA = frozenset(_LIST.split())
WIDE = ("hypermlp", "hyperglu")  # which no narrower budget fits
BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]


class Recorder(TorchDispatchMode):
    """The names of the ATen operations that run inside; of `bincount` only with weights, for integers add exactly."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.overloadpacket.__name__
        weighted = isinstance(args[1] if len(args) > 1 else (kwargs or {}).get("weights"), torch.Tensor)
        if name != "bincount" or weighted:
            self.names.add(name)
        return function(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def _as_on_a_gpu(monkeypatch):
    monkeypatch.setattr("kernels.cpu.call.library", lambda: None)
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.setattr("suite.training.execution.show_pictures", lambda *_: None)


@pytest.mark.parametrize("mixer", BUILT_IN)
def test_no_operation_of_a_mixer_is_refused_on_a_gpu(monkeypatch, mixer):
    able = registry.get(mixer).capabilities
    if mixer in WIDE:
        monkeypatch.setattr("tests.backbones.small_models.DIM", 48)
    for name, make in BACKBONES.items():
        if able.causal if name == "decoder" else able.bidirectional:
            model, inputs = make(mixer)
            with Recorder() as seen:
                model(inputs).square().sum().backward()
            assert "mm" in seen.names
            assert not seen.names & REFUSED_ON_CUDA


@pytest.mark.parametrize("task", [*TASKS, "mqar"])
def test_no_operation_of_a_run_is_refused_on_a_gpu(task):
    """Losses, metrics, clipping, the optimiser and averaged weights included."""
    sets = ("ema=0.9", "dropout=0.1", "drop_path=0.1", "steps=1", "evals=1")
    with Recorder() as seen:
        made = start(
            tiny_config(task, "softmax", *sets, *(RECALL if task == "mqar" else ())), data_dir=None, device="cpu"
        ).record
    assert made.status == "finished", made.error
    assert any("adamw" in name for name in seen.names)
    assert not seen.names & REFUSED_ON_CUDA


def test_a_planted_operation_is_found():
    with Recorder() as seen:
        torch.bincount(torch.tensor([0, 1]), minlength=3)
    assert not seen.names & REFUSED_ON_CUDA
    with Recorder() as seen:
        torch.bincount(torch.tensor([0, 1]), torch.ones(2))
        torch.nn.functional.cross_entropy(torch.ones(2, 3, 4), torch.zeros(2, 4, dtype=torch.long))
    assert seen.names & REFUSED_ON_CUDA == {"bincount", "nll_loss2d_forward"}
