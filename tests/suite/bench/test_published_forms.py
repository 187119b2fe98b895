"""The bench's competitors: plain PyTorch models of equal parameters, the authors' forms of FEM and HyperGLU."""

from __future__ import annotations

import pytest
import torch

import tasks
from kernels.linear.sums import decayed_sums
from suite.bench import kernels, layers, naive, plain_models, report, training
from suite.bench.comparison import run_comparison
from suite.bench.plain_models import count, plain_model, require_equal
from suite.bench.timing import CPU, Timing
from suite.models.resolve import resolve_run
from tasks.base import TextInput

TASKS = ("sotu", "fashion-mnist", "household-power")


def fixed(seconds):
    """In place of `interleaved`: reports the given seconds, for other workloads one."""

    def timings(workloads, rounds, device=CPU):
        return {name: Timing(s := seconds.get(name, 1.0), s, s, rounds) for name in workloads}

    return timings


@pytest.mark.parametrize("name", TASKS)
def test_a_plain_model_has_our_parameters_outputs_and_gradients_everywhere(name):
    resolved = resolve_run(task=name, mixer="softmax", scale="quick")
    task = tasks.get(name)(resolved.config.data)
    task.load()
    ours = training.built(resolved, task)
    plain = plain_model(task.spec, resolved.config.model, count(ours))
    assert abs(count(plain) - count(ours)) <= 0.01 * count(ours)
    batch = next(task.train_batches(0, 2))
    outputs = plain(batch.inputs)
    assert outputs.shape == ours(batch.inputs).shape
    task.loss(outputs, batch).backward()
    assert [at for at, p in plain.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_plain_decoder_does_not_see_later_tokens():
    resolved = resolve_run(task="sotu", mixer="softmax", scale="quick")
    spec = tasks.get("sotu")(resolved.config.data).spec
    assert isinstance(spec, TextInput)
    plain = plain_models.PlainDecoder(spec, resolved.config.model, 8)
    ids_BT = torch.zeros(1, 20, dtype=torch.long)
    changed_BT = ids_BT.clone()
    changed_BT[:, 10:] = 1
    before, after = plain(ids_BT), plain(changed_BT)
    torch.testing.assert_close(before[:, :10], after[:, :10])
    assert not torch.allclose(before[:, 10:], after[:, 10:])


def test_models_of_unequal_parameters_are_refused():
    require_equal(1000, 1010, "x")
    for theirs in (1011, 989):
        with pytest.raises(ValueError, match=rf"x: {theirs:,} parameters, ours has 1,000; they may differ by 1 %"):
            require_equal(1000, theirs, "x")


@pytest.mark.parametrize(("plain_s", "met"), [(1.31, True), (1.29, False)])
def test_a_step_must_be_faster_than_the_plain_model_with_either_optimizer(monkeypatch, plain_s, met):
    monkeypatch.setattr("suite.bench.comparison.interleaved", fixed({"PatchTST-like, fused AdamW": plain_s}))
    monkeypatch.setattr("suite.bench.comparison.peak_bytes", lambda *_: 1)
    comparison = training.training_comparison("household-power", "softmax")
    assert "parameters: 412,974, PatchTST-like 412,788" in comparison.about
    outcome = run_comparison(comparison, 2, training_names())
    figures = {f["against"]: f for f in outcome.figures()}
    assert figures["PatchTST-like, fused AdamW"]["met"] is met
    document = {"contests": [outcome.plain()], "exponents": []}
    unmet = [line for line in report.unmet(document) if "fused AdamW" in line]
    assert len(unmet) == (0 if met else 1)
    assert any("PatchTST-like, foreach AdamW is 1.00, required ≥ 1.3" in line for line in report.unmet(document))


def training_names():
    return tuple(f"PatchTST-like, {optimizer} AdamW" for optimizer in training.OPTIMIZERS)


@pytest.mark.parametrize("chunk", [1, 16, 37, 64])
def test_lag_mixing_in_chunks_equals_the_dense_one(chunk):
    q, k, v, *rest = (x.double().requires_grad_() for x in kernels.of_lag_mixing(37, 2, 2))
    *before, after = kernels.lag_mixings(rest)
    results = [naive.lag_mix_in_chunks(q, k, v, before, after, chunk), naive.dense_lag_mix(q, k, v, before, after)]
    upstream = torch.randn_like(results[0])
    ours, theirs = (torch.autograd.grad(y, [q, k, v, *rest], upstream, retain_graph=True) for y in results)
    for one, other in zip((results[0], *ours), (results[1], *theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


@pytest.mark.parametrize("channels", [0, 1, 8])
def test_sums_of_every_tokens_state_equal_the_kernels(channels):
    q, k, v = (kernels.normal(2, 40, 3, w, seed=i).double() for i, w in enumerate((8, 8, 5)))
    log_decay = -kernels.normal(2, 40, 3, channels, seed=3).double().abs() / 8 if channels else None
    torch.testing.assert_close(
        naive.decayed_sums_by_cumulative_sum(q, k, v, log_decay), decayed_sums(q, k, v, log_decay), rtol=0, atol=1e-10
    )


@pytest.mark.parametrize(("name", "competitor"), [("fem-simple-gla", layers.STATES), ("hyperglu", layers.chunks(64))])
def test_a_layer_with_the_authors_form_computes_the_same_values(monkeypatch, name, competitor):
    monkeypatch.setattr(layers, "forward_backward", lambda function, *inputs: lambda: function(*inputs))
    workloads = layers.layer(name, 65)
    torch.testing.assert_close(workloads["ours"](), workloads[competitor](), rtol=1e-4, atol=1e-5)


def test_layers_have_the_required_ratios():
    bounds = {(v, T): [r.bound for r in layers.requirements_of(v, T)] for v, T in (("fem", 256), ("fem", 1024))}
    assert bounds == {("fem", 256): [1.2], ("fem", 1024): [1.1]}
    assert [r.bound for r in layers.requirements_of("fem-linear", 1024)] == [None, 30.0]
    of_chunks = {r.competitor: r.bound for r in layers.requirements_of("hyperglu", 1024) if "chunks" in r.competitor}
    assert of_chunks.pop("chunks of 1,024 (default)") == 6.0
    assert set(of_chunks.values()) == {3.5}
