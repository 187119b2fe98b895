"""The bench: peers compute what ours computes, samples take turns, and a demand that is missed is said and is exit code
1.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from suite.bench import kernels, layers, naive, report, results_folder
from suite.bench.comparison import Contest, Demand, both_ways, run_contest
from suite.bench.timing import exponent, interleaved, peak_bytes
from suite.errors import UserError

PEERS = {
    "free-energy softmax read, d_k = 2 d_v": ["two sdpa calls"],
    "free-energy softmax read, d_v = d_k": ["two sdpa calls"],
}


@pytest.fixture
def compared(monkeypatch):
    """What each implementation gives, result and gradients, instead of its time."""

    def keep(function, *inputs):
        leaves = [x.detach().clone().double().requires_grad_() for x in inputs]
        out = function(*leaves)
        results = [out] if isinstance(out, torch.Tensor) else list(out)
        torch.manual_seed(0)
        grads = torch.autograd.grad(results, leaves, [torch.randn(y.shape, dtype=y.dtype) for y in results])
        return lambda: [x.detach() for x in (*results, *grads)]

    monkeypatch.setattr(kernels, "both_ways", keep)


@pytest.mark.parametrize("length", [1, 65])
def test_peers_of_a_kernel_compute_what_ours_computes(compared, length):
    seen = 0
    for contest in kernels.contests([length]):
        works = contest.build()
        alike = PEERS.get(contest.name) or [
            name for name in works if name in ("cumulative sum", "step by step", "dense")
        ]
        for name in alike:
            seen += 1
            for ours, theirs in zip(works["ours"](), works[name](), strict=True):
                assert float((ours - theirs).abs().max()) <= 1e-6 * max(float(theirs.abs().max()), 1e-6), (
                    contest.name,
                    name,
                )
    assert seen >= 8


def test_the_squares_that_are_compiled_compute_the_free_energy():
    q, k, v = (
        torch.randn(2, 30, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(3)
    )
    beta = torch.full((3, 8), 1.3, dtype=torch.float64)
    both = zip(naive.free_energy_by_squares(q, k, v, beta), naive.free_energy_by_two_calls(q, k, v, beta), strict=True)
    assert all(torch.allclose(one, two, rtol=0, atol=1e-10) for one, two in both)


def test_every_round_runs_everything_once_in_an_order_that_turns():
    order = []
    timings = interleaved({name: lambda name=name: order.append(name) for name in "abc"}, rounds=3)
    assert {t.samples for t in timings.values()} == {3}
    turns = [name for at, name in enumerate(order) if at == 0 or order[at - 1] != name]
    assert "".join(turns).endswith("abc" + "bca" + "cab")


def test_peak_memory_is_that_of_the_largest_moment():
    def work():
        first = torch.empty(1 << 20)
        del first
        second, third = torch.empty(1 << 20), torch.empty(1 << 18)
        return second, third

    assert peak_bytes(work) == 4 * ((1 << 20) + (1 << 18))


def test_the_exponent_is_the_slope_of_the_logarithms():
    assert exponent([10, 100, 1000], [3.0, 300.0, 30_000.0]) == pytest.approx(2.0)


def fixed(seconds):
    """Contests whose times are given."""

    def run(works, rounds):
        from suite.bench.timing import Timing

        return {name: Timing(seconds[name], seconds[name], seconds[name], rounds) for name in works}

    return run


@pytest.mark.parametrize(
    ("kind", "must", "met"), [("price", 2.0, True), ("price", 1.9, False), ("speed", 0.5, True), ("speed", 0.6, False)]
)
def test_a_demand_is_met_or_missed_by_its_ratio(monkeypatch, kind, must, met):
    monkeypatch.setattr("suite.bench.comparison.interleaved", fixed({"ours": 2.0, "peer": 1.0}))
    contest = Contest("x", 8, lambda: {"ours": lambda: None, "peer": lambda: None}, (Demand(kind, "peer", must),))
    [figure] = run_contest(contest, rounds=2).figures()
    assert figure["met"] is met
    assert figure["value"] == {"price": 2.0, "speed": 0.5}[kind]


def test_utilisation_compares_flops_a_second(monkeypatch):
    monkeypatch.setattr("suite.bench.comparison.interleaved", fixed({"ours": 2.0, "product": 1.0}))
    contest = Contest(
        "x", 8, lambda: {"ours": lambda: None, "product": lambda: None}, (Demand("mfu", "product", 0.4, work=0.9),)
    )
    [figure] = run_contest(contest, rounds=2).figures()
    assert figure["value"] == pytest.approx(0.45)
    assert figure["met"]


def test_a_peer_that_cannot_run_is_told_and_ours_has_to():
    def breaks():
        raise RuntimeError("no backward here\nand more")

    outcome = run_contest(
        Contest("x", 8, lambda: {"ours": lambda: None, "peer": breaks}, (Demand("price", "peer", 1.0),)), rounds=2
    )
    assert outcome.plain()["could_not_run"] == {"peer": "RuntimeError: no backward here"}
    assert outcome.figures() == []
    with pytest.raises(RuntimeError):
        run_contest(Contest("x", 8, lambda: {"ours": breaks}), rounds=2)


def test_a_peer_of_no_contest_is_refused_by_name():
    with pytest.raises(UserError, match=r"no peer is called 'sofmax' here; there are softmax"):
        report.measure("mixers", list(layers.layers(["no-mixing"], [8])), rounds=2, against=["sofmax"])


def test_a_demand_on_a_peer_that_fails_is_not_met():
    def fails():
        raise ValueError

    contest = Contest("x", 8, lambda: {"ours": lambda: None, "peer": fails}, (Demand("price", "peer", 2.0),))
    document = report.measure("kernels", [contest], rounds=2, against=())
    assert report.missed(document) == ["x at 8: price against peer could not be judged"]
    assert document["contests"][0]["could_not_run"] == {"peer": "ValueError: no message"}


def test_a_mixer_that_cannot_meet_the_budget_is_told_and_the_rest_goes_on():
    document = report.measure("mixers", list(layers.layers(["hyperglu", "no-mixing"], [4112])), rounds=2, against=())
    refused, timed = document["contests"]
    assert "L=4112 needs at least" in refused["could_not_run"]["ours"]
    assert refused["rows"] == refused["figures"] == []
    assert timed["rows"]
    assert report.missed(document) == []
    assert "needs at least" in "".join(str(c) for c in report.table(document).columns[4].cells)


def test_the_dense_layer_computes_what_the_layer_computes(monkeypatch):
    monkeypatch.setattr(layers, "both_ways", lambda function, *inputs: lambda: function(*inputs))
    works = layers.layer("hyperglu", 65)
    assert torch.allclose(works["ours"](), works["dense"](), rtol=1e-4, atol=1e-5)


def test_forward_and_backward_give_gradients_to_every_input():
    seen = []
    x = torch.ones(3)
    work = both_ways(lambda a, b: seen.append((a.requires_grad, b.requires_grad)) or a * b, x, x)
    work()
    assert seen == [(True, True)]
    assert not x.requires_grad


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_kernels_give_one_json_document_and_a_plot(suite, tmp_path, one_thread):
    ended = suite(
        "bench", "kernels", "--lengths", "16,32", "--rounds", "2", "--plot", str(tmp_path / "speed.png"), "--json"
    )
    document = json.loads(ended.out)
    assert ended.code == (1 if report.missed(document) else 0)
    assert (tmp_path / "speed.png").read_bytes().startswith(b"\x89PNG")
    assert document["kind"] == "speed"
    assert document["hardware"]["processor"]
    assert {c["length"] for c in document["contests"]} == {16, 32}
    assert all(row["median_s"] > 0 and row["samples"] == 2 for c in document["contests"] for row in c["rows"])


def test_decoding_and_layers_show_a_table(suite, monkeypatch, one_thread):
    monkeypatch.setattr(layers, "LATE", 80)
    monkeypatch.setattr(layers, "DIM", 32)
    for arguments in (["decode", "--mixer", "gla"], ["mixers", "--mixer", "gla", "--lengths", "16"]):
        ended = suite("bench", *arguments, "--rounds", "2")
        assert "gla" in ended.out, ended.err
        assert "process time" in ended.out
        assert ended.code in (0, 1)


@pytest.mark.slow
def test_training_steps_are_measured_on_real_batches(suite, one_thread):
    ended = suite("bench", "train", "--mixer", "softmax", "--rounds", "2", "--json")
    document = json.loads(ended.out)
    assert [c["name"] for c in document["contests"]] == [
        f"softmax on {task}" for task in ("sotu", "fashion-mnist", "household-power")
    ]
    for contest in document["contests"]:
        share = next(f for f in contest["figures"] if f["figure"] == "mfu")
        assert 0 < share["value"] < 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["engines"], "unknown kind 'engines'; there are kernels, mixers, train, decode"),
        (["kernels", "--mixer", "fem"], "--mixer says nothing to `suite bench kernels`"),
        (["train", "--lengths", "16"], "--lengths says nothing to `suite bench train`"),
        (["kernels", "--lengths", "16,x"], "is not a list of token counts"),
        (["mixers", "--mixer", "static-qk"], "'static-qk' is not a causal mixer that needs only its input"),
        (["kernels", "--plot", "speed.doc"], "does not end in .png, .svg or .pdf"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_timed(suite, arguments, said):
    ended = suite("bench", *arguments)
    assert ended.code == 2
    assert said in ended.err
    assert len(ended.err.splitlines()) == 1


def test_the_speed_pages_are_what_their_documents_make():
    folders = [folder for folder in (Path(__file__).parents[3] / "leaderboards" / "speed").iterdir() if folder.is_dir()]
    assert folders
    for folder in folders:
        assert (folder / "README.md").read_text("utf-8") == results_folder.page(results_folder.documents(folder)), (
            folder.name
        )


def test_a_folder_keeps_documents_and_a_page_made_from_them(suite, tmp_path):
    folder = tmp_path / "speed" / "here"
    ended = suite("bench", "kernels", "--lengths", "8", "--rounds", "2", "--out", str(folder))
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "kernels.json", "kernels.png"], ended.err
    page = (folder / "README.md").read_text("utf-8")
    assert page == results_folder.page([json.loads((folder / "kernels.json").read_text("utf-8"))])
    assert "| AFT read | 8 | " in page
    assert "speed over cumulative sum" in page
    (tmp_path / "file").write_text("")
    refused = suite(
        "bench", "mixers", "--mixer", "no-mixing", "--lengths", "8", "--rounds", "2", "--out", str(tmp_path / "file")
    )
    assert (refused.code, "--out:" in refused.err) == (2, True)
