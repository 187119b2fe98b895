"""Identity hashes, groups and loss traces stay what they were: see `capture.py`."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest

from tests.golden import capture

GOLDEN = json.loads(capture.FILE.read_text("utf-8"))
#: Relative differences of losses between processors. Gradients of HyperGLU's rows with few keys are mostly rounding
#: (tests/backbones/test_hypermlp.py), which the first steps amplify: an Intel Xeon and an AMD EPYC were 8e-3 apart.
ON_OTHER_MACHINES = {"hyperglu": 2e-2}


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """Runs a command in this process and returns its JSON document."""
    import torch

    from suite.cli import app

    monkeypatch.setenv("SUITE_HOME", str(tmp_path))
    monkeypatch.setenv("SUITE_TRACKING", "off")
    monkeypatch.chdir(capture.FILE.parents[2])
    torch.set_num_threads(1)

    def run(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["suite", *arguments])
        with pytest.raises(SystemExit) as end:
            app.main()
        out, err = capsys.readouterr()
        assert end.value.code == 0, err
        return json.loads(out)

    return run


@pytest.mark.parametrize("name", capture.CONFIGS)
def test_identity_and_group_are_unchanged(call, name):
    shown = call("show", *capture.CONFIGS[name], "--json")
    assert {"identity": shown["identity"], "group": shown["group"]} == GOLDEN["identities"][name]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "mixer"), capture.RUNS)
def test_training_gives_the_same_losses(call, task, mixer):
    record = call(*capture.run_arguments(task, mixer))
    got = capture.trace(record)
    wanted = GOLDEN["traces"][f"{task} {mixer}"]
    if capture.machine() == GOLDEN["machine"]:
        assert got == wanted
    else:
        allowed = ON_OTHER_MACHINES.get(mixer, 2e-3)
        found, expected = (_comparable(record, losses) for losses in (got, wanted))
        assert found == pytest.approx(expected, rel=allowed, abs=allowed)


def _comparable(record: dict[str, Any], trace: list[str]) -> list[float]:
    """The losses and figures of a trace; of a perplexity its logarithm, because its rounding grows with the loss."""
    names = ["loss"] * len(record["loss_trace"]) + sorted(record["metrics"]["test"])
    values = zip(names, map(float.fromhex, trace), strict=True)
    return [math.log(value) if name == "perplexity" else value for name, value in values]
