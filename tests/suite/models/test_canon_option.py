"""`model.canon`: what its convolutions cost is certified, and runs with it are rows of their own on the same boards."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import tasks
from backbones.base import Block
from backbones.decoder import Decoder
from backbones.mixers import registry
from suite.boards.board import boards
from suite.boards.columns import cells
from suite.boards.columns.table import COLUMNS
from suite.boards.naming import configuration_name, run_name
from suite.errors import UserError
from suite.models.candidate import parse
from suite.models.certificate import Certificate
from suite.models.inputs import adapter
from suite.models.resolve import resolve
from suite.records.checks.crosscheck import faults
from tests.suite.models.test_budget import check, count, count_trunk, first_mixer, prepared
from tests.suite.tiny import made_record

TASKS = ("sotu", "fashion-mnist", "household-power")
TAPS = 4
BUILT_IN = [name for name in registry.names() if registry.origin(name) == "built-in"]


def certificates(task: str, mixer: str, places: str, scale: str) -> tuple[Certificate, Certificate]:
    """Without the option and with it, matched or not."""
    found = []
    for sets in ([], [f"model.canon={places}"]):
        config = resolve(task=task, mixer=mixer, scale=scale, sets=sets)
        candidate, spec = parse(mixer), tasks.get(task)(config.data).spec
        found.append(candidate.certify(config, spec, candidate.plan(config, spec)))
    return found[0], found[1]


# --- the budget


@pytest.mark.parametrize("places", ["A", "AC"])
@pytest.mark.parametrize("task", TASKS)
def test_every_mixer_with_canon_is_matched_or_refused_with_numbers(task: str, places: str) -> None:
    refused = {}
    for name in BUILT_IN:
        can = registry.get(name).capabilities
        if not (can.causal if task == "sotu" else can.bidirectional):
            continue
        plain, found = certificates(task, name, places, "board")
        assert found.reference_parameters == plain.reference_parameters
        assert found.reference_flops == plain.reference_flops
        assert found.reference_state_bytes == plain.reference_state_bytes
        if found.matched:
            assert abs(found.ratio - 1) <= 0.01
            assert found.pays_in_ffn or abs(found.mixer_ratio - 1) <= 0.05
        else:
            refused[name] = " ".join(found.reasons)
    assert set(refused) == {"canon"}  # it has convolutions of its own, as large as its budget allows
    assert "per mixer layer, the reference has" in refused["canon"]


@pytest.mark.parametrize("places", ["A", "C", "AC"])
@pytest.mark.parametrize("mixer", ["softmax", "fem", "no-mixing", "identity-query"])
@pytest.mark.parametrize("task", TASKS)
def test_the_certificate_counts_the_taps_that_a_real_model_has(task: str, mixer: str, places: str) -> None:
    config, spec = prepared(task, mixer, [f"model.canon={places}"], unmatched=True)
    plan, certificate = check(config, spec)
    backbone = adapter(spec).backbone(plan.shape, plan.layers)
    taps = [p for name, p in backbone.named_parameters() if ".canon." in name]
    assert sum(p.numel() for p in taps) == TAPS * config.model.dim * len(places) * config.model.depth
    assert certificate.parameters == count_trunk(backbone.trunk)
    assert certificate.total_parameters == count([backbone])
    before_the_mixer = TAPS * config.model.dim * ("A" in places)
    assert certificate.mixer_parameters == count([first_mixer(backbone.trunk)]) + before_the_mixer
    plain = adapter(spec).backbone(plan.shape, plan.reference)
    assert certificate.reference_parameters == count_trunk(plain.trunk)
    assert not any(".canon." in name for name, _ in plain.named_parameters())


@pytest.mark.parametrize("places", ["A", "C", "AC"])
@pytest.mark.parametrize("task", TASKS)
def test_the_feed_forward_layer_gives_up_what_the_taps_cost(task: str, places: str) -> None:
    config, spec = prepared(task, "softmax", [f"model.canon={places}"], unmatched=True)
    _, found = check(config, spec)
    column = 3 * config.model.dim  # parameters of one step of the feed-forward width
    assert abs(found.parameters - found.reference_parameters) <= config.model.depth * column / 2
    assert found.ffn_width < found.reference_ffn_width


@pytest.mark.parametrize(("task", "taps"), [("sotu", 4), ("fashion-mnist", 7), ("household-power", 7)])
@pytest.mark.parametrize("places", ["A", "C", "AC"])
def test_the_flops_of_the_taps_are_two_per_tap_and_channel(task: str, taps: int, places: str) -> None:
    config, spec = prepared(task, "softmax", [f"model.canon={places}"], unmatched=True)
    _, found = check(config, spec)
    dim, depth, positions = config.model.dim, config.model.depth, adapter(spec).positions
    narrower = config.model.ffn_width - found.ffn_width
    per_layer = 2 * taps * dim * len(places) - 6 * dim * narrower
    assert found.flops - found.reference_flops == positions * depth * per_layer


@pytest.mark.parametrize("places", ["A", "C", "AC"])
def test_the_certified_state_is_that_of_a_real_decoder(places: str) -> None:
    config, spec = prepared("sotu", "softmax", [f"model.canon={places}"], unmatched=True)
    plan, certificate = check(config, spec)
    model = adapter(spec).backbone(plan.shape, plan.layers)
    assert isinstance(model, Decoder)
    assert sum(state.bytes() for state in model.init_state(1, adapter(spec).length)) == certificate.state_bytes
    added = certificate.state_bytes - certificate.reference_state_bytes
    assert added == config.model.depth * len(places) * 3 * config.model.dim * 4


def test_in_a_hybrid_all_layers_have_the_convolutions_and_the_total_is_matched() -> None:
    config = resolve(task="sotu", mixer="fem", scale="board", sets=["model.canon=AC"], hybrid="even")
    spec = tasks.get("sotu")(config.data).spec
    plan, certificate = check(config, spec)
    assert certificate.matched
    assert {layer.canon for layer in plan.layers} == {"AC"}
    assert {layer.canon for layer in plan.reference} == {"none"}
    softmax = plan.layers[1]
    assert softmax.mixer is registry.get("softmax")
    per_layer = 3 * config.model.dim * (config.model.ffn_width - softmax.ffn_width)  # what their FFN gives for the taps
    assert abs(per_layer - 2 * TAPS * config.model.dim) <= 1.5 * config.model.dim


def test_a_mixer_that_the_taps_make_too_large_is_refused_with_both_counts() -> None:
    config, spec = prepared("sotu", "softmax", ["dim=16", "ffn_width=44", "model.canon=A"])
    with pytest.raises(UserError, match=r"1,088 parameters per mixer layer, the reference has 1,024 \(\+6\.2%"):
        check(config, spec)


# --- runs, records and boards


def test_no_convolution_is_the_default_and_changes_no_hash_or_record() -> None:
    usual, given, other = (prepared("sotu", "softmax", sets)[0] for sets in ([], ["canon=none"], ["canon=A"]))
    assert (usual.identity, usual.model.canon) == (given.identity, "none")
    assert "canon" not in usual.recorded()["model"]
    assert other.recorded()["model"] == {**usual.recorded()["model"], "canon": "A"}
    assert (other.identity != usual.identity, other.group == usual.group) == (True, True)


def test_a_baseline_has_no_layer_to_put_a_convolution_into() -> None:
    with pytest.raises(UserError, match=r"model\.canon=A changes nothing .* no mixer layers"):
        resolve(task="household-power", mixer="baseline/ridge", scale="board", sets=["canon=A"])


@pytest.mark.parametrize("place", ["B", "D", "ABC", "yes"])
def test_other_places_are_refused_with_those_that_exist(place: str) -> None:
    with pytest.raises(UserError, match="'none', 'A', 'C' or 'AC'"):
        resolve(task="sotu", mixer="softmax", sets=[f"canon={place}"])


def test_a_board_has_a_row_of_its_own_for_a_mixer_with_canon() -> None:
    records = [
        made_record("softmax", 0.5),
        made_record("softmax", 0.6, name="with-canon", sets=("canon=A",)),
        made_record("gla", 0.4),
        made_record("gla", 0.45, name="gla-with-canon", sets=("canon=AC",)),
        made_record("fem", 0.3),
    ]
    assert [fault for made in records for fault in faults(made)] == []
    [board] = boards(records)
    shown = {row.mixer: cells.convolution(row) for row in board.rows}
    with_canon = {"softmax (canon=A)": True, "gla (host prior, canon=AC)": True}
    assert shown == {"softmax": False, "gla (host prior)": False, "fem": True, **with_canon}
    [column] = [column for column in COLUMNS if column.name == "convolution"]
    texts = {row.mixer: column.cell(row, board) for row in board.rows}
    assert (texts["softmax (canon=A)"], texts["softmax"]) == ("yes", "no")
    assert all(row.place is not None for row in board.rows)
    assert configuration_name(records[1]) == "softmax (canon=A)"
    assert run_name(records[1]) == "softmax (canon=A) · board · seed 0"


def test_a_model_with_canon_is_built_for_every_kind_of_input() -> None:
    for name in TASKS:
        config, spec = prepared(name, "softmax", ["canon=AC"], unmatched=True)
        plan, _ = check(config, spec)
        model: nn.Module = parse("softmax").build(config, tasks.get(name)(config.data), plan)
        blocks = [module for module in model.modules() if isinstance(module, Block)]
        assert {block.canon.causal for block in blocks} == {spec.causal}
        assert all(bool(torch.isfinite(p).all()) for block in blocks for p in block.canon.parameters())
