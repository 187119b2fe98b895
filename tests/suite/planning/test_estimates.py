"""Memory, batches, communication and rates follow the formulas that their descriptions give."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from suite.config.run_config import TrainConfig
from suite.errors import UserError
from suite.planning.communication import COLLECTIVES, communication, link_of
from suite.planning.device_memory import USABLE, Training, device_memory, largest_batch
from suite.planning.estimate import Cluster, estimate, examples_per_device, passes_of, reference_work, step_moved
from suite.planning.gpus import GPUS, gpu_named
from suite.planning.model_count import ModelCount
from suite.planning.rates import BEST_PRODUCTS, Rates, assumed_rates
from suite.planning.step_work import Amounts, StepWork
from suite.planning.this_machine import Measured, Step, counted_step, fitted_rates, own_rates

MODEL = ModelCount(
    parameters=1000,
    trainable=1000,
    block_parameters=200,
    depth=4,
    flops=6000,
    computed=5000,
    tokens=1,
    work=StepWork(Amounts(100, 50, 40, 30), Amounts(10, 0, 7, 6), Amounts(0, 0, 10, 9), Amounts(0, 0, 2, 1)),
)
TRAIN = TrainConfig(steps=10, batch_size=32)


def test_memory_grows_with_every_example():
    for training in (Training(MODEL, ema=True), Training(MODEL, ema=False, gpus=4, parallel="fsdp")):
        totals = [device_memory(training, examples, passes=2).total for examples in range(1, 50)]
        assert totals == sorted(set(totals))


@pytest.mark.parametrize("passes", [1, 2])
@pytest.mark.parametrize("memory", [1, 20_000, 21_000, 30_000, 50_001])
def test_the_batch_that_fits_is_the_largest(memory, passes):
    training, found = Training(MODEL, ema=True), 0
    while device_memory(training, found + 1, passes).total <= USABLE * memory:
        found += 1
    assert largest_batch(training, memory, passes) == found


def test_a_single_pass_holds_activations_or_gradients_whichever_is_more():
    memory = device_memory(Training(MODEL, ema=False), 4)
    assert (memory.activations, memory.gradients) == (9 + 4, 4000)
    large = device_memory(Training(MODEL, ema=False), 1000)
    assert (large.activations, large.gradients) == (40 + 7000, 0)
    both = device_memory(Training(MODEL, ema=False), 4, passes=2)
    assert (both.activations, both.gradients) == (40 + 28, 4000)


def test_fsdp_divides_what_is_kept_and_gathers_blocks_and_embeddings():
    memory = device_memory(Training(MODEL, ema=True, gpus=8, parallel="fsdp"), 4)
    assert memory.parameters == memory.gradients == memory.ema == memory.selected == 500
    assert memory.optimiser == 1000
    assert memory.communication == 4 * (2 * (1000 - 4 * 200) + 3 * 200)
    assert device_memory(Training(MODEL, ema=True, gpus=8, parallel="fsdp"), 4, passes=2).gradients == 4000
    assert device_memory(Training(MODEL, ema=True, gpus=8), 4).parameters == 4000


def test_fsdp_holds_the_whole_model_while_it_validates():
    blocks = replace(MODEL, parameters=100_000, trainable=100_000, block_parameters=24_900)
    training = Training(blocks, ema=True, gpus=8, parallel="fsdp")
    memory = device_memory(training, 1)
    assert (memory.communication, memory.activations, memory.gradients) == (400_000, 0.0, 0.0)
    assert memory.total == 400_000 + 50_000 * (1 + 2 + 1 + 1)
    assert device_memory(replace(training, selects=False), 1).communication < 400_000


def test_a_batch_that_does_not_fit_is_computed_in_passes():
    heavy = replace(MODEL, work=replace(MODEL.work, per_example=Amounts(10, 0, 700, 600)))
    training, memory = Training(heavy, ema=False), 30_200 / USABLE
    most = largest_batch(training, memory, 2)
    assert 0 < most < 32
    passes, found = passes_of(TRAIN, training, memory)
    assert (passes, found) == (math.ceil(32 / most), most)
    assert passes_of(TRAIN, training, 10**9)[0] == 1
    assert passes_of(TRAIN.model_copy(update={"accumulate": 4}), training, 10**9)[0] == 4
    assert passes_of(TRAIN, training, 1) == (32, 0)


def test_a_batch_that_does_not_divide_is_refused_with_the_nearest_that_does():
    assert examples_per_device(32, 8) == 4
    with pytest.raises(UserError, match=r"a batch of 32 examples .* 5 GPUs.*train.batch_size=35"):
        examples_per_device(32, 5)


@pytest.mark.parametrize(
    ("parallel", "passes", "parts"), [("ddp", 1, 2), ("ddp", 3, 2), ("fsdp", 1, 3), ("fsdp", 3, 7)]
)
def test_collectives_send_what_their_description_says(parallel, passes, parts):
    sent = communication(parallel, 1000, 4, 8, 100.0, 0.0, passes)
    assert sent.seconds == pytest.approx(parts * 7 / 8 * 4000 / (COLLECTIVES * 100))
    assert sent.exposed == sent.seconds
    hidden = communication(parallel, 1000, 4, 8, 100.0, 1e9, passes)
    assert hidden.exposed == pytest.approx(sent.seconds / 5)
    assert communication(parallel, 1000, 4, 1, 100.0, 1.0, passes).seconds == 0


def test_between_machines_the_network_is_the_link():
    h100 = GPUS["h100"]
    assert link_of(h100, 8) == h100.link
    assert link_of(h100, 16) == 50e9
    assert link_of(GPUS["l40s"], 16) == GPUS["l40s"].link


def test_the_reference_reaches_the_assumed_utilisation():
    gpu, work = GPUS["h100"], (1e15, 0.9e15, 1e11)
    rates = assumed_rates(gpu, "bf16", 0.35, work)
    assert 1e15 / rates.seconds(work[1], work[2]) / gpu.bf16 == pytest.approx(0.35)
    bound = assumed_rates(gpu, "bf16", 0.35, (1e15, 0.9e15, 1e13))
    assert bound.products == BEST_PRODUCTS * gpu.bf16
    assert 1e15 / bound.seconds(0.9e15, 1e13) / gpu.bf16 < 0.35


def test_a_run_is_its_steps_and_its_cost_counts_every_gpu():
    cluster = Cluster(8, "ddp", peak=1e6, memory=1e9, link=1e9)
    training = Training(MODEL, ema=False, gpus=8)
    found = estimate(TRAIN, training, cluster, Rates(1e5, 1e5, 1e9))
    compute = (3 * 5000 * 4 + step_moved(training, 4, 1)) / 1e5
    assert step_moved(training, 4, 1) == 100 + 4 * 10 + 40 * 1000
    assert found.compute_s == pytest.approx(compute)
    assert found.step_s == pytest.approx(compute + found.communication.exposed)
    assert found.run_s == pytest.approx(10 * found.step_s)
    assert found.gpu_hours == pytest.approx(found.run_s * 8 / 3600)
    assert found.mfu == pytest.approx(3 * 6000 * 32 / found.step_s / 8e6)


def test_a_step_takes_at_least_the_time_to_start_its_operations():
    training = Training(MODEL, ema=False)
    found = estimate(TRAIN, training, Cluster(1, "ddp", 1e6, 1e9, 1e9), Rates(1e15, 1e15, 100.0))
    assert found.compute_s == 0.5


def test_a_device_computes_while_operations_are_issued_and_a_processor_afterwards():
    device, processor = Rates(1e3, 1e3, 1e2), Rates(1e3, 1e3, 1e2, ahead=False)
    assert device.seconds(500, 500, 10) == 1.0
    assert device.seconds(500, 500, 300) == 3.0
    assert processor.seconds(500, 500, 300) == 4.0


def test_the_reference_is_counted_with_the_whole_batch():
    flops, computed, moved = reference_work(MODEL, TRAIN)
    assert (flops, computed) == (3 * 6000 * 32, 3 * 5000 * 32)
    assert moved == step_moved(Training(MODEL, ema=False), 32, 1)


def test_rates_are_recovered_from_steps_that_follow_them():
    true = Rates(5e10, 8e9, 3e4, ahead=False)
    work = ((1e9, 1e8, 100), (1e9, 4e8, 200), (3e9, 2e8, 600), (2e9, 2e8, 100))
    measured = [Measured(Step("t", "m", *each, 0.0, lambda: dict), true.seconds(*each), 0.0, 0.0, 0) for each in work]
    found = fitted_rates(measured)
    assert np.allclose([found.products, found.traffic, found.issued], [true.products, true.traffic, true.issued])
    assert not found.ahead
    slower = [replace(each, seconds=2 * each.seconds) for each in measured]
    assert fitted_rates(slower).products == pytest.approx(true.products / 2)


def test_a_counted_step_has_the_operations_of_more_layers_than_one():
    step = counted_step("parity", "softmax")
    assert step.operations > 50
    assert step.moved > 0


def test_a_mixers_own_rates_are_recovered_from_two_steps():
    common, own = Rates(5e10, 8e9, 3e4, ahead=False), Rates(1e11, 1.6e10, 1.5e4, ahead=False)
    work = ((1e9, 1e8, 100), (2e9, 4e8, 900))
    measured = [Measured(Step("t", "m", *each, 0.0, lambda: dict), own.seconds(*each), 0.0, 0.0, 0) for each in work]
    found = own_rates(measured, common)
    assert np.allclose([found.products, found.traffic, found.issued], [own.products, own.traffic, own.issued])
    assert not found.ahead


def test_an_unknown_gpu_is_refused_with_the_names_that_are_known():
    with pytest.raises(UserError, match=r"--gpu 'h10' is unknown; did you mean 'h100'\? allowed: h100, h200") as error:
        gpu_named("h10")
    assert "\n" not in str(error.value)
    assert gpu_named("h200").memory == 141e9


@pytest.mark.parametrize("gpu", GPUS.values(), ids=list(GPUS))
def test_published_figures_are_plausible_and_have_a_source(gpu):
    assert gpu.source
    assert 1e14 < gpu.bf16 < 1e16
    assert gpu.fp32 < gpu.bf16
    assert gpu.link < gpu.bandwidth < 1e13
