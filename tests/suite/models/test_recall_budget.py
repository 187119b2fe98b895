"""Every built-in mixer can be matched on the recall tasks at every scale, so that none is missing from a board."""

from __future__ import annotations

import pytest

import tasks
from backbones.mixers import registry
from suite.config.recipe import SCALES
from suite.models.resolve import resolve_run

MIXERS = [name for name in registry.names() if registry.origin(name) == "built-in"]
#: Tasks whose shapes differ from each other; the others have the shapes of mad-in-context or of parity.
TASKS = ("mqar", "mad-in-context", "mad-memorize", "mad-compress", "mad-copy", "parity", "s5", "mano")


def check_all(task: str, scale: str) -> None:
    assert len(MIXERS) > 25
    for mixer in MIXERS:
        made = resolve_run(task=task, mixer=mixer, scale=scale)
        spec = tasks.get(task)(made.config.data).spec
        _, certificate = made.candidate.check(made.config, spec)  # raises UserError where nothing fits
        assert certificate.matched, mixer
        assert certificate.reference_state_bytes > 0


def test_every_built_in_mixer_is_matched_at_the_test_size():
    check_all("mqar", "board")


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("task", TASKS)
def test_every_built_in_mixer_is_matched(task, scale):
    check_all(task, scale)
