"""Golden identities and loss traces: what 12 configs hash to, and the losses of six training steps for each family of
tasks and mixers.

`python -m tests.golden.capture` writes them again. Do that only for a change that is meant to move them, and say why in
the commit. Losses are compared bit for bit on the machine kind that wrote them, and to rounding elsewhere.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import unittest.mock
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "golden.json"

#: name: arguments of `suite show --json`
CONFIGS = {
    "defaults-sotu": ["--task", "sotu", "--mixer", "softmax"],
    "fem-images": ["--task", "fashion-mnist", "--mixer", "fem", "--scale", "board"],
    "fem-ablation": [
        "--task",
        "household-power",
        "--mixer",
        "fem",
        "--set",
        "mixer.temperature=false",
        "--set",
        "lr=5e-4",
    ],
    "hyperglu-hybrid": ["--task", "sotu", "--mixer", "hyperglu", "--scale", "small", "--hybrid", "even"],
    "hypermlp-images": ["--task", "fashion-mnist", "--mixer", "hypermlp"],
    "identity-query": ["--task", "fashion-mnist", "--mixer", "identity-query", "--scale", "small"],
    "ssm-recall": ["--task", "mqar", "--mixer", "ssm", "--scale", "board"],
    "gla-mad": ["--task", "mad-in-context", "--mixer", "gla"],
    "random-qk": ["--task", "sotu", "--mixer", "random-qk", "--scale", "board"],
    "horizon": ["--task", "household-power", "--mixer", "fem-aft", "--horizon", "192"],
    "ridge": ["--task", "household-power", "--mixer", "baseline/ridge"],
    "third-party": ["--task", "sotu", "--mixer", "tests/golden/third_party.py:MovingAverage", "--scale", "board"],
}

SHAPE = ("dim=32", "model.heads=2", "depth=2", "ffn_width=88", "batch_size=8", "steps=6", "evals=3")
TASKS = {
    "sotu": ("length=16", "valid_limit=16", "test_limit=16"),
    "fashion-mnist": ("patch=14", "eval_batch_size=500"),
    "household-power": ("dim=64", "horizon=8", "stride=16", "valid_limit=16", "test_limit=16"),
    "mqar": ("dim=64",),
}
BOTH_WAYS = ("softmax", "fem", "hyperglu", "simple-gla", "ssm", "aft", "nonlinear-query")
CAUSAL = (*BOTH_WAYS, "taylor", "random-qk")
RUNS = [(t, m) for t in TASKS for m in (CAUSAL if t in ("sotu", "mqar") else BOTH_WAYS)]


def run_arguments(task: str, mixer: str) -> list[str]:
    """The command line of one golden run, without `suite`."""
    sets = [part for value in (*SHAPE, *TASKS[task]) for part in ("--set", value)]
    return [
        "run",
        "--task",
        task,
        "--mixer",
        mixer,
        "--scale",
        "board",
        "--device",
        "cpu",
        "--unmatched",
        "--json",
        *sets,
    ]


def trace(record: dict[str, Any]) -> list[str]:
    """Losses and test figures of a record, exactly."""
    metrics = record["metrics"]["test"]
    return [float(loss).hex() for _, loss in record["loss_trace"]] + [
        float(metrics[name]).hex() for name in sorted(metrics)
    ]


def machine() -> dict[str, str]:
    """What decides the last bits: the processor, PyTorch, and the kernels that run."""
    import torch

    from backbones.implementations import implementations

    processor = next(
        (x for x in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if x.startswith("model name")), ""
    )
    return {
        "processor": processor.partition(":")[2].strip(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "kernels": json.dumps(implementations(torch.device("cpu")), sort_keys=True),
    }


def _suite(*arguments: str) -> dict[str, Any]:
    """The JSON document of a command, run in this process."""
    from suite.cli import app

    out = io.StringIO()
    with unittest.mock.patch("sys.argv", ["suite", *arguments]), contextlib.redirect_stdout(out):
        try:
            app.main()
        except SystemExit as end:
            if end.code:
                raise RuntimeError(f"{' '.join(arguments)} ended with {end.code}") from end
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def main() -> None:
    """Writes the golden file."""
    import torch

    torch.set_num_threads(1)
    with (
        tempfile.TemporaryDirectory() as home,
        unittest.mock.patch.dict("os.environ", SUITE_HOME=home, SUITE_TRACKING="off"),
    ):
        shown = {name: _suite("show", *given, "--json") for name, given in CONFIGS.items()}
        traces = {f"{t} {m}": trace(_suite(*run_arguments(t, m))) for t, m in RUNS}
    content = {
        "machine": machine(),
        "identities": {name: {"identity": s["identity"], "group": s["group"]} for name, s in shown.items()},
        "traces": traces,
    }
    FILE.write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
