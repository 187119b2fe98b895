"""How a sweep and its runs on other machines talk: an actor that both can reach."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from suite.sweeps.executor import Key, Step

FIRST_S = 60.0


class Desk:
    """An actor between a sweep and its runs: runs write down their steps and learn whether they should stop."""

    def __init__(self) -> None:
        self.steps: dict[Key, tuple[int, int]] = {}
        self.stopping = False

    def write(self, key: Key, step: int, steps: int) -> bool:
        """Takes the step of a run.

        Args:
            key: of the run.
            step: that it has reached.
            steps: of the whole run; 0 before they are known.

        Returns:
            Whether it should stop.
        """
        self.steps[key] = (step, steps)
        return self.stopping

    def reached(self) -> dict[Key, tuple[int, int]]:
        """The steps that were written since the last call."""
        steps, self.steps = self.steps, {}
        return steps

    def stop(self) -> None:
        """From now on all runs should stop."""
        self.stopping = True


class Line:
    """The connection of a run to its sweep, which never makes it wait. A lost actor is started again by Ray; when the
    sweep has died, Ray ends this process.
    """

    def __init__(self, key: Key, desk: Any) -> None:
        self.key, self.desk, self.answer, self.stop = key, desk, None, False

    def asked(self) -> bool:
        """Whether the sweep is stopping already, which is worth a moment before a run begins."""
        import ray

        try:
            self.stop = bool(ray.get(self.desk.write.remote(self.key, 0, 0), timeout=FIRST_S))
        except ray.exceptions.RayError:
            self.stop = False
        return self.stop

    def send(self, step: Step) -> None:
        """Sends a step; the answer is read before the next ones."""
        if self.answer is None:
            self.answer = self.desk.write.remote(self.key, step.step, step.steps)

    def stopped(self) -> bool:
        """Whether the sweep has answered that it stops."""
        import ray

        if self.answer is not None and ray.wait([self.answer], timeout=0)[0]:
            with suppress(ray.exceptions.RayError):
                self.stop = self.stop or bool(ray.get(self.answer))
            self.answer = None
        return self.stop
