"""The contract passes a correct mixer and catches each planted error, with the input that shows it."""

from __future__ import annotations

import json

import pytest
import torch
from rich.console import Console
from torch import Tensor

from backbones.contract.run import CHECKS, as_json, render, run_checks
from backbones.mixers.base import Context
from backbones.mixers.errors import MixerError
from tests.backbones.contract.pool_mixer import BROKEN, LeaksFuture, NeedsEvenLength, Pool, PoolConfig


def test_a_correct_mixer_passes_every_check() -> None:
    results = run_checks(Pool)
    assert [(r.check, r.causal, r.reason, r.shown_by) for r in results if r.status == "failed"] == []
    assert {r.check for r in results if r.status == "ok"} == {c.id for c in CHECKS if not c.slow} - {"no-mixing"}


@pytest.mark.parametrize(("broken", "check"), BROKEN.items(), ids=[b.__name__ for b in BROKEN])
def test_each_planted_error_is_caught_by_its_check(broken: type[Pool], check: str) -> None:
    failed = [r for r in run_checks(broken, only=[check]) if r.status == "failed"]
    assert failed
    assert all(r.reason and r.setting for r in failed)


@pytest.mark.parametrize(
    "id", [c.id for c in CHECKS if not c.slow and c.id not in {"no-mixing", "too-long", "all-masked"}]
)
def test_every_check_has_a_planted_error(id: str) -> None:
    assert id in BROKEN.values()


def test_a_failure_comes_with_the_smallest_input_that_shows_it() -> None:
    (causal, _) = run_checks(LeaksFuture, only=["prefix"])
    shown = dict(causal.setting)
    assert float(shown.pop("change")) > float(shown.pop("allowed"))
    assert shown == {"B": 2, "T": 2, "D": 32, "seen": 1, "future": "changed"}
    odd = next(r for r in run_checks(NeedsEvenLength, only=["shape"]))
    assert dict(odd.setting)["T"] == 7


def test_padding_that_makes_nan_is_caught() -> None:
    class Empty(Pool):
        def weights(self, x_BTD, context):
            p_BTT = super().weights(x_BTD, context)
            return (
                p_BTT
                if context.mask_BT is None
                else p_BTT * context.mask_BT[:, None] / context.mask_BT.any(1)[:, None, None]
            )

    assert [r.status for r in run_checks(Empty, only=["all-masked"])] == ["failed", "failed"]


def test_a_sequence_over_the_length_may_be_refused_but_not_mangled() -> None:
    class Cuts(Pool):
        def forward(self, x_BTD, context=None):
            return super().forward(x_BTD[:, : self.length])

    class Refuses(Pool):
        def forward(self, x_BTD, context=None):
            raise MixerError("T is over the length")

    assert {r.status for r in run_checks(Cuts, only=["too-long"])} == {"failed"}
    assert {r.status for r in run_checks(Refuses, only=["too-long"])} == {"ok"}


def test_declaring_no_mixing_while_mixing_is_caught() -> None:
    class Denies(Pool):
        capabilities = type(Pool.capabilities)(constant_state=True, mixes_tokens=False)

    assert {r.status for r in run_checks(Denies, only=["no-mixing"])} == {"failed"}


def test_a_direction_that_is_not_declared_is_not_applicable() -> None:
    class OneWay(Pool):
        capabilities = type(Pool.capabilities)(constant_state=True, bidirectional=False)

    assert {r.status for r in run_checks(OneWay) if not r.causal} == {"not applicable"}


def test_without_a_naive_reference_flops_are_reported_as_not_checked() -> None:
    class Bare(Pool):
        plain_forward = None  # type: ignore[assignment]

    results = run_checks(Bare, only=["flops", "naive"])
    assert {r.status for r in results} == {"not applicable"}
    assert all("plain_forward" in r.reason for r in results)


def test_the_global_generator_is_restored() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run_checks(Pool, only=["shape", "reset"])
    assert torch.equal(torch.rand(3), expected)


def test_an_unknown_check_is_refused_with_the_nearest_and_the_list() -> None:
    with pytest.raises(MixerError, match=r"'prefx'; did you mean 'prefix'.*config, shape"):
        run_checks(Pool, only=["prefx"])


def test_results_render_as_one_json_document_and_as_a_table() -> None:
    results = run_checks(LeaksFuture, only=["prefix", "rows"])
    document = json.loads(json.dumps(as_json("mine.py:LeaksFuture", results)))
    assert document["holds"] is False
    assert document["counts"] == {"ok": 2, "not applicable": 1, "failed": 1}
    assert document["results"][0]["setting"]["T"] == 2
    console = Console(width=160, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as capture:
        console.print(render("mine.py:LeaksFuture", results))
    shown = capture.get()
    assert "FAILS" in shown
    assert "T=2" in shown
    assert "does not depend on the other rows" in shown


@pytest.mark.slow
def test_the_slow_checks_pass_a_correct_mixer_and_catch_a_wrong_gradient() -> None:
    slow = [c.id for c in CHECKS if c.slow]
    assert {r.status for r in run_checks(Pool, only=slow)} == {"ok"}

    class Wrong(Pool):
        def forward(self, x_BTD: Tensor, context: Context = Context()) -> Tensor:
            y_BTD = super().forward(x_BTD, context)
            return y_BTD + 0.01 * (x_BTD - x_BTD.detach())

    assert {r.status for r in run_checks(Wrong, only=["gradcheck-full"])} == {"failed"}


def test_jit_trace_is_refused_in_one_line() -> None:
    mixer = Pool(PoolConfig(width=4), 8, 4)
    with (
        pytest.warns(FutureWarning, match="deprecated"),
        pytest.raises(MixerError, match=r"^Pool: torch.jit.trace records .* use torch.export.export instead$"),
    ):
        torch.jit.trace(mixer, (torch.randn(1, 4, 8),))
