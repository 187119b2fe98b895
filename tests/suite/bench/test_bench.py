"""The bench: competitors compute the same values, samples are interleaved, and an unmet requirement is reported and
gives exit code 1.
"""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

import tasks
from kernels.cpu import limits
from kernels.cpu.bf16 import choice
from suite.bench import kernels, layers, naive, report, training
from suite.bench.comparison import Comparison, Requirement, forward_backward, run_comparison
from suite.bench.timing import CPU, Timing, exponent, interleaved, peak_bytes
from suite.errors import UserError
from suite.models.inputs import adapter
from suite.models.resolve import resolve_run

EQUIVALENT = {
    "free-energy softmax read, d_k = 2 d_v": ["two sdpa calls"],
    "free-energy softmax read, d_v = d_k": ["two sdpa calls"],
}

NAIVE = ("cumulative sum", "step by step", "plain chunks", "dense")
PRICE_OF_ONE = Requirement("price", "theirs", 1.0)


@pytest.fixture
def evaluated(monkeypatch):
    """Workloads return results and gradients, so that implementations can be compared."""

    def evaluate(function, *inputs):
        leaves = [x.detach().clone().double().requires_grad_() for x in inputs]
        out = function(*leaves)
        results = [out] if isinstance(out, torch.Tensor) else list(out)
        torch.manual_seed(0)
        grads = torch.autograd.grad(results, leaves, [torch.randn(y.shape, dtype=y.dtype) for y in results])
        return lambda: [x.detach() for x in (*results, *grads)]

    monkeypatch.setattr(kernels, "forward_backward", evaluate)


def results_of(workload) -> list[torch.Tensor]:
    results: list[torch.Tensor] = workload()
    return results


@pytest.mark.parametrize("length", [1, 65])
def test_competitors_of_a_kernel_compute_the_same_values(evaluated, length):
    seen = 0
    for comparison in kernels.kernel_comparisons([length]):
        workloads = comparison.build()
        naive_names = [
            name for name in workloads if name in ("cumulative sum", "step by step", "plain chunks", "dense")
        ]
        for name in EQUIVALENT.get(comparison.name, naive_names):
            seen += 1
            for ours, theirs in zip(results_of(workloads["ours"]), results_of(workloads[name]), strict=True):
                error = float((ours - theirs).abs().max()) / max(float(theirs.abs().max()), 1e-6)
                assert error <= 1e-6, (comparison.name, name)
    assert seen >= 9


def test_the_dense_free_energy_equals_two_attention_calls():
    q, k, v = (
        torch.randn(2, 30, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    beta = torch.full((3, 8), 1.3, dtype=torch.float64)
    both = zip(naive.dense_free_energy(q, k, v, beta), naive.free_energy_with_two_calls(q, k, v, beta), strict=True)
    assert all(torch.allclose(one, two, rtol=0, atol=1e-10) for one, two in both)


def test_every_round_runs_each_workload_once_in_rotating_order():
    order: list[str] = []
    timings = interleaved({name: partial(order.append, name) for name in "abc"}, rounds=3)
    assert {t.samples for t in timings.values()} == {3}
    turns = [name for at, name in enumerate(order) if at == 0 or order[at - 1] != name]
    assert "".join(turns).endswith("abc" + "bca" + "cab")


def test_peak_memory_is_the_largest_memory_held_at_once():
    def work():
        first = torch.empty(1 << 20)
        del first
        second, third = torch.empty(1 << 20), torch.empty(1 << 18)
        return second, third

    assert peak_bytes(work) == 4 * ((1 << 20) + (1 << 18))


def test_the_exponent_is_the_slope_of_log_time_over_log_length():
    assert exponent([10, 100, 1000], [3.0, 300.0, 30_000.0]) == pytest.approx(2.0)


def fixed(seconds):
    """In place of `interleaved`: reports the given seconds."""

    def timings(workloads, rounds, device=CPU):
        return {name: Timing(seconds[name], seconds[name], seconds[name], rounds) for name in workloads}

    return timings


def doing_nothing(*names):
    """A comparison's `build`, with implementations that do nothing."""
    return lambda: {name: lambda: None for name in names}


@pytest.mark.parametrize(
    ("kind", "bound", "met"), [("price", 2.0, True), ("price", 1.9, False), ("speed", 0.5, True), ("speed", 0.6, False)]
)
def test_a_requirement_is_met_or_unmet_by_its_ratio(monkeypatch, kind, bound, met):
    monkeypatch.setattr("suite.bench.comparison.interleaved", fixed({"ours": 2.0, "theirs": 1.0}))
    comparison = Comparison("x", 8, doing_nothing("ours", "theirs"), (Requirement(kind, "theirs", bound),))
    [figure] = run_comparison(comparison, rounds=2).figures()
    assert figure["met"] is met
    assert figure["value"] == {"price": 2.0, "speed": 0.5}[kind]


def test_utilisation_compares_flop_rates(monkeypatch):
    monkeypatch.setattr("suite.bench.comparison.interleaved", fixed({"ours": 2.0, "product": 1.0}))
    comparison = Comparison("x", 8, doing_nothing("ours", "product"), (Requirement("mfu", "product", 0.4, work=0.9),))
    [figure] = run_comparison(comparison, rounds=2).figures()
    assert figure["value"] == pytest.approx(0.45)
    assert figure["met"]


def test_a_competitor_that_cannot_run_is_reported_but_an_error_of_ours_is_raised():
    def fails():
        raise RuntimeError("no backward here\nand more")

    comparison = Comparison("x", 8, lambda: {"ours": lambda: None, "theirs": fails}, (PRICE_OF_ONE,))
    outcome = run_comparison(comparison, rounds=2)
    assert outcome.plain()["could_not_run"] == {"theirs": "RuntimeError: no backward here"}
    assert outcome.figures() == []
    with pytest.raises(RuntimeError):
        run_comparison(Comparison("x", 8, lambda: {"ours": fails}), rounds=2)


def test_an_unknown_competitor_is_refused_by_name():
    comparisons = list(layers.layer_comparisons(["no-mixing"], [8]))
    with pytest.raises(UserError, match=r"--against.*'sofmax'.*did you mean 'softmax'.*allowed: softmax"):
        report.measure("mixers", comparisons, rounds=2, against=["sofmax"])


def test_a_requirement_whose_competitor_fails_counts_as_unmet():
    def fails():
        raise ValueError

    comparison = Comparison("x", 8, lambda: {"ours": lambda: None, "theirs": fails}, (PRICE_OF_ONE,))
    document = report.measure("kernels", [comparison], rounds=2, against=())
    [sentence] = report.unmet(document)
    assert sentence.startswith("x at 8: price against theirs is undecided")
    assert document["contests"][0]["could_not_run"] == {"theirs": "ValueError: no message"}


def test_a_requirement_whose_competitor_does_not_exist_here_is_undecided(monkeypatch):
    monkeypatch.setattr("suite.bench.comparison.interleaved", fixed({"ours": 2.0}))
    comparison = Comparison("x", 8, doing_nothing("ours"), (Requirement("mfu", "limit", 0.5), PRICE_OF_ONE))
    assert run_comparison(comparison, rounds=2).undecided() == ["mfu against limit", "price against theirs"]


@pytest.mark.slow
def test_a_mixer_that_cannot_meet_the_budget_is_reported_and_the_others_are_timed():
    comparisons = list(layers.layer_comparisons(["hyperglu", "no-mixing"], [4112]))
    document = report.measure("mixers", comparisons, rounds=2, against=())
    refused, timed = document["contests"]
    assert "L=4112 needs at least" in refused["could_not_run"]["ours"]
    assert refused["rows"] == refused["figures"] == []
    assert timed["rows"]
    assert report.unmet(document) == []
    assert "needs at least" in "".join(str(c) for c in report.table(document).columns[4].cells)


def test_an_unmet_requirement_is_reported_with_its_value_and_bound():
    figure = {"figure": "speed", "against": "dense", "value": 2.5, "must": 3.0, "met": False}
    comparison = {"name": "x", "length": 1024, "figures": [figure]}
    scan = {"name": "a scan", "exponent": 1.5, "must": 1.1, "met": False}
    speed, exponent_too_large = report.unmet({"contests": [comparison], "exponents": [scan]})
    assert speed == "x at 1,024: speedup over dense is 2.50, required ≥ 3.0"
    assert exponent_too_large == "a scan: exponent 1.50, required ≤ 1.1"


def test_the_dense_layer_computes_the_same_values(monkeypatch):
    monkeypatch.setattr(layers, "forward_backward", lambda function, *inputs: lambda: function(*inputs))
    workloads = layers.layer("hyperglu", 65)
    torch.testing.assert_close(workloads["ours"](), workloads["dense"](), rtol=1e-4, atol=1e-5)


def test_forward_backward_computes_gradients_of_every_input():
    seen = []

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        seen.append((a.requires_grad, b.requires_grad))
        return a * b

    x = torch.ones(3)
    forward_backward(product, x, x)()
    assert seen == [(True, True)]
    assert not x.requires_grad


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_kernels_write_one_json_document_and_a_plot(suite, tmp_path, one_thread):
    ended = suite(
        "bench", "kernels", "--lengths", "16,32", "--rounds", "2", "--plot", str(tmp_path / "speed.png"), "--json"
    )
    document = json.loads(ended.out)
    assert ended.code == (1 if report.unmet(document) else 0)
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert document["kind"] == "speed"
    assert document["hardware"]["processor"]
    assert {c["length"] for c in document["contests"]} == {16, 32}
    assert all(row["median_s"] > 0 and row["samples"] == 2 for c in document["contests"] for row in c["rows"])


def test_decoding_and_layers_print_a_table(suite, monkeypatch, one_thread):
    monkeypatch.setattr(layers, "LATE", 80)
    monkeypatch.setattr(layers, "DIM", 32)
    for arguments in (["decode", "--mixer", "gla"], ["mixers", "--mixer", "gla", "--lengths", "16"]):
        ended = suite("bench", *arguments, "--rounds", "2")
        assert "gla" in ended.out, ended.err
        assert "process time" in ended.out
        assert ended.code in (0, 1)


def test_one_read_takes_as_many_bytes_as_weights_and_state_have(monkeypatch):
    read: list[int] = []
    monkeypatch.setattr(limits, "reading", lambda floats: (lambda: read.append(floats), 4.0 * floats))
    mixer = layers.build_layer("gla", 8)
    state = mixer.init_state(3, 8)
    held = sum(p.numel() for p in mixer.parameters()) + sum(x.numel() for x in state.tensors.values())
    workload = layers.read_once(mixer, state)
    assert workload is not None
    workload()
    assert read == [held] * layers.STEPS


@pytest.mark.parametrize(
    ("task", "mixer", "factor"),
    [("sotu", "softmax", 4), ("sotu", "simple-gla", 0), ("fashion-mnist", "softmax", 0), ("household-power", "fem", 0)],
)
def test_half_of_what_grows_with_the_length_is_masked_in_causal_models(task, mixer, factor):
    resolved = resolve_run(task=task, mixer=mixer, scale="quick")
    model, spec = resolved.config.model, tasks.get(task)(resolved.config.data).spec
    length = adapter(spec).length
    unseen = length - (length + 1) // 2
    made = tasks.get(task)(resolved.config.data)
    # scores and their product with the values: 2 · 2 FLOPs per feature and position
    assert training.masked_flops(resolved, made) == factor * unseen * model.dim * model.depth


def test_the_limit_counts_the_flops_of_all_rounds_and_threads(one_thread):
    made = []
    for rounds, threads in ((3, 1), (6, 1), (3, 2)):
        torch.set_num_threads(threads)
        if (found := limits.multiply_adds(rounds)) is None:
            pytest.skip("no compiled library")
        assert found[0]() == found[1] > 0
        made.append(found[1])
    assert made == [made[0], 2 * made[0], 2 * made[0]]


@pytest.mark.parametrize("floats", [1, 127, 128, 1000])
def test_reading_takes_every_byte_once_on_any_number_of_threads(one_thread, floats):
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found = limits.reading(floats, of=2 * floats + 1)
        if found is None:
            pytest.skip("no compiled library")
        for _ in range(5):  # beyond the end of the array
            found[0]()
        assert found[1] == 4 * floats


def test_the_measured_limits_are_rates(monkeypatch):
    monkeypatch.setattr(report, "interleaved", fixed({"adds": 0.5, "read": 0.25}))
    monkeypatch.setattr("kernels.cpu.limits.multiply_adds", lambda: (lambda: None, 1e9))
    monkeypatch.setattr("kernels.cpu.limits.reading", lambda: (lambda: None, 1e9))
    found = report.measured_limits(2)
    assert found == {"multiply_add_gflops": 2.0, "read_gb_per_s": 4.0}
    line = report.limits_line({"limits": found})
    assert line == "multiply-adds at most 2 GFLOP/s, memory read at 4.0 GB/s"
    assert report.limits_line({}) == ""
    monkeypatch.setattr("kernels.cpu.limits.reading", lambda: None)
    assert report.measured_limits(2) == {}


@pytest.mark.slow
def test_training_steps_are_measured_on_real_batches_and_compared_with_one_thread(suite, one_thread, monkeypatch):
    monkeypatch.setattr(choice, "_ran", {"projection": {"of an earlier run"}})
    ended = suite("bench", "train", "--mixer", "softmax", "--rounds", "2", "--threads", "2", "--json")
    document = json.loads(ended.out)
    assert [c["name"] for c in document["contests"]] == [
        f"softmax on {task}" for task in ("sotu", "fashion-mnist", "household-power")
    ]
    for comparison in document["contests"]:
        utilisation = next(f for f in comparison["figures"] if f["figure"] == "mfu")
        assert utilisation["against"] == "multiply-add limit"
        assert utilisation["value"] > 0  # on a machine in use the limit is no limit
        scaling = next(f for f in comparison["figures"] if f["against"] == "one thread")
        assert (scaling["figure"], scaling["must"]) == ("speed", 1.6)
        assert scaling["value"] > 0
        assert next(f for f in comparison["figures"] if f["against"] == training.BF16)["value"] > 0
    assert set(document["implementations"]) == {"cpu", "attention", "swiglu"}


def test_the_row_of_one_thread_runs_on_one_and_gives_the_others_back():
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        training.on_one_thread(lambda: seen.append(torch.get_num_threads()))()
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["kernel"], ["'kernel'", "did you mean 'kernels'", "mixers, train, decode"]),
        (["kernels", "--mixer", "fem"], ["--mixer fem", "suite bench kernels", "leave it out"]),
        (["train", "--lengths", "16"], ["--lengths 16", "suite bench train", "leave it out"]),
        (["kernels", "--lengths", "16,x"], ["--lengths", "'16,x'", "such as 256,1024"]),
        (["mixers", "--mixer", "static-qk"], ["'static-qk'", "softmax, linear"]),
        (["kernels", "--plot", "speed.doc"], ["--plot", "speed.doc", ".png, .svg or .pdf"]),
    ],
)
def test_invalid_options_are_one_line_before_anything_is_timed(suite, arguments, parts):
    ended = suite("bench", *arguments)
    assert ended.code == 2
    assert [part for part in parts if part not in ended.err] == []
    assert len(ended.err.splitlines()) == 1
