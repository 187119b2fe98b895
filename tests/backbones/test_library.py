"""`backbones.mixers.build`: a mixer as a layer of someone else's model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from backbones.mixers import build, registry
from backbones.mixers.base import Context
from backbones.mixers.errors import MixerError
from backbones.mixers.library import TOLERANCE, softmax_parameters
from tests.backbones.contract.pool_mixer import Pool

ROOT = Path(__file__).resolve().parents[2]
BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]
VARIANTS = [(name, True) for name in BUILT_IN if registry.get(name).capabilities.causal]
VARIANTS += [(name, False) for name in BUILT_IN if registry.get(name).capabilities.bidirectional]


def run_outside(code: str, folder: Path) -> str:
    """Runs a script in a folder outside the repository with the four packages on the path; gives what it prints."""
    script = folder / "use.py"
    script.write_text(code, "utf-8")
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", str(script)]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_code_of_the_documentation_runs_outside_the_repository_without_the_suite(tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "library.md").read_text("utf-8"), re.M | re.S)
    assert len(blocks) >= 7
    loaded = "import sys\nprint('loaded:', sorted({'suite', 'tasks', 'tests'} & sys.modules.keys()))\n"
    printed = run_outside("\n".join([*blocks, loaded]), tmp_path)
    assert "fem has no option 'head'; did you mean 'heads'?" in printed
    assert printed.endswith("loaded: []\n")


def test_importing_the_package_loads_no_heavy_library(tmp_path: Path) -> None:
    code = "import sys, backbones.mixers\nprint(sorted({'torch', 'pydantic', 'numpy'} & sys.modules.keys()))\n"
    assert run_outside(code, tmp_path) == "[]\n"


@pytest.mark.parametrize(("name", "causal"), VARIANTS)
def test_every_built_in_is_built_at_the_budget_and_runs(name: str, causal: bool) -> None:
    layer = build(name, dim=128, length=16, causal=causal)
    needs = layer.capabilities.needs
    x_BTD = torch.randn(3, 7, 128)
    context = Context(embedding_BTD=x_BTD if "embedding" in needs else None, constant_row="constant row" in needs)
    assert layer(x_BTD, context).shape == x_BTD.shape
    held = sum(parameter.numel() for parameter in layer.parameters())
    assert held == layer.cost(layer.config, 128, 16).parameters
    wanted = 3 * 128**2 if name == "identity-query" else 4 * 128**2
    assert abs(held / wanted - 1) <= TOLERANCE


@pytest.mark.parametrize("dim", [64, 256, 768])
def test_the_default_budget_is_the_count_of_softmax_attention(dim: int) -> None:
    assert softmax_parameters(dim) == sum(p.numel() for p in build("softmax", dim, 16).parameters())


def test_a_budget_is_kept_and_given_widths_stay() -> None:
    half = build("fem", 256, 64, budget=2 * 256**2)
    assert abs(sum(p.numel() for p in half.parameters()) / (2 * 256**2) - 1) <= TOLERANCE
    chosen = build("fem", 256, 64, d_v=8, d_k=6).config
    assert chosen.model_dump(include={"d_v", "d_k"}) == {"d_v": 8, "d_k": 6}


def test_parameters_are_initialised_even_where_the_constructor_does_not() -> None:
    class Unset(Pool):
        def __init__(self, config, dim, length):
            super().__init__(config, dim, length)
            for parameter in self.parameters():
                parameter.data.fill_(torch.nan)

    assert all(bool(p.isfinite().all()) for p in build(Unset, 32, 8).parameters())


def test_a_users_file_is_built_by_its_path() -> None:
    layer = build(f"{ROOT}/examples/moving_average.py:MovingAverage", 64, 16)
    assert type(layer).__name__ == "MovingAverage"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"mixer": "fme"}, ["'fme'", "did you mean 'fem'"]),
        ({"mixer": "fem", "head": 4}, ["'head'", "did you mean 'heads'", "d_v"]),
        ({"mixer": "fem", "heads": 0}, ["heads=0"]),
        ({"mixer": "fem", "d_k": 3}, ["d_k=3"]),
        ({"mixer": "softmax", "heads": 3}, ["heads=3", "128"]),
        ({"mixer": "softmax", "dim": 0}, ["dim", "0"]),
        ({"mixer": "softmax", "length": 2.5}, ["length", "2.5"]),
        ({"mixer": "softmax", "budget": 20_000}, ["20,000", "budget=65536"]),
        ({"mixer": "fem", "dim": 32, "length": 8}, ["4,096", "d_v=…", "d_k=…"]),
        ({"mixer": "fla/gla", "causal": False}, ["causal=True"]),
        ({"mixer": "hyperglu", "length": 1024}, ["D=128", "L ≤ 668"]),
        ({"mixer": "fla/mamba2", "heads": 512}, ["dim=128", "512 heads"]),
    ],
)
def test_invalid_arguments_are_refused_in_one_line(arguments: dict[str, object], said: list[str]) -> None:
    with pytest.raises(MixerError) as refusal:
        build(**{"dim": 128, "length": 64, **arguments})  # type: ignore[arg-type]
    message = str(refusal.value)
    assert "\n" not in message
    assert all(part in message for part in said), message


def test_what_cannot_be_built_on_this_machine_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pool, "obstacle", classmethod(lambda cls, device=None: "the package pooling is not installed"))
    with pytest.raises(MixerError, match="Pool cannot be built here: the package pooling is not installed"):
        build(Pool, 32, 8)


def test_only_causal_layers_decode() -> None:
    with pytest.raises(MixerError, match="only a causal mixer decodes"):
        build("fem", 128, 64, causal=False).init_state(1, 64)
