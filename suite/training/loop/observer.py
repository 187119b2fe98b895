"""What the training loop calls as it goes."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """What the training loop calls as it goes; the calls should return quickly.

    started: before the first step; `step` is 0, or where a resumed run continues.
    stepped: after each step, with its loss, learning rate and gradient norm before clipping.
    validated: after each validation, with the metrics by name.
    before_checkpoint: may block until everything that was reported is written.
    warn: a problem that does not stop the run.
    """

    def started(self, step: int, total: int) -> None: ...
    def stepped(self, step: int, loss: float, lr: float, grad_norm: float) -> None: ...
    def validated(self, step: int, metrics: dict[str, float]) -> None: ...
    def before_checkpoint(self, step: int) -> None: ...
    def warn(self, message: str) -> None: ...
