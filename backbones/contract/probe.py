"""What a check works with: the mixer under test, its inputs, and how a failure is reported.

A check is a function of a `Probe`. It tries settings from small to large, records each with `Probe.at`, and raises
`ViolationError` at the first one that fails: the recorded setting is then the smallest input tried that shows the
failure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import torch
from torch import Tensor

from backbones.mixers.base import Context, Mixer, MixerConfig
from backbones.mixers.errors import MixerError

NaiveForward = Callable[[Mixer, Tensor, Context], Tensor]  # `forward` spelt out in matrix products and loops
Value = int | float | str | bool
CPU = torch.device("cpu")


class ViolationError(Exception):
    """The check fails at the probe's setting."""


class NotApplicableError(Exception):
    """The check does not apply to this mixer; the message says why."""


@dataclass(frozen=True)
class Check:
    """One check: `sentence` is true when `function` returns. Slow checks run on request only."""

    id: str
    sentence: str
    function: Callable[[Probe], None]
    slow: bool = False


REGISTERED: list[Check] = []


def check(id: str, sentence: str, slow: bool = False) -> Callable[[Callable[[Probe], None]], Callable[[Probe], None]]:
    """Decorator: adds a check to the contract."""

    def add(function: Callable[[Probe], None]) -> Callable[[Probe], None]:
        REGISTERED.append(Check(id, sentence, function, slow))
        return function

    return add


@dataclass(frozen=True)
class Case:
    """An input of a mixer with its context: tokens, embeddings, a mask, a constant row at the end of the batch."""

    x_BTD: Tensor
    embedding_BTD: Tensor | None = None
    mask_BT: Tensor | None = None
    constant_row: bool = False

    @property
    def context(self) -> Context:
        return Context(mask_BT=self.mask_BT, embedding_BTD=self.embedding_BTD, constant_row=self.constant_row)

    @property
    def rows(self) -> int:
        """Rows without the constant one."""
        return self.x_BTD.shape[0] - int(self.constant_row)

    def map(self, change: Callable[[Tensor], Tensor]) -> Case:
        """Applies a change to the tokens and to their embeddings, if any."""
        embedding_BTD = None if self.embedding_BTD is None else change(self.embedding_BTD)
        return replace(self, x_BTD=change(self.x_BTD), embedding_BTD=embedding_BTD)

    def token(self, position: int) -> tuple[Tensor, Context]:
        """The arguments of `step` at one position."""
        embedding_BTD = None if self.embedding_BTD is None else self.embedding_BTD[:, position : position + 1]
        return self.x_BTD[:, position], Context(embedding_BTD=embedding_BTD, constant_row=self.constant_row)

    def padded(self, pad: int, real_rows: slice, fill: Callable[[Tensor], Tensor]) -> Case:
        """Puts `pad` masked tokens before the rows of `real_rows`; other rows get as many unmasked ones at the end."""
        B, T, _ = self.x_BTD.shape
        keep = torch.ones(B, dtype=torch.bool)
        keep[real_rows] = False

        def shift(z_BTD: Tensor) -> Tensor:
            extra_BPD = fill(z_BTD[:, :1].expand(-1, pad, -1))
            left_BTD, right_BTD = torch.cat([extra_BPD, z_BTD], 1), torch.cat([z_BTD, extra_BPD], 1)
            return torch.where(keep[:, None, None], right_BTD, left_BTD)

        mask_BT = torch.ones(B, T + pad, dtype=torch.bool)
        mask_BT[real_rows, :pad] = False
        return replace(self.map(shift), mask_BT=mask_BT)


@dataclass
class Probe:
    """The mixer under test, causal or not. Checks get modules and inputs from it, and record their setting in it."""

    cls: type[Mixer]
    causal: bool
    naive: NaiveForward | None = None
    device: torch.device = CPU
    options: Mapping[str, Value] = field(default_factory=dict)  # of the config, where not the defaults
    setting: dict[str, Value] = field(default_factory=dict)
    _configs: dict[tuple[int, int], MixerConfig] = field(default_factory=dict)

    @property
    def precise(self) -> torch.dtype:
        """The most precise dtype that the mixer computes in."""
        return torch.float64 if self.cls.capabilities.fp64 else torch.float32

    @property
    def exact(self) -> float:
        """Tolerance in that dtype, relative to max|y|: two orders of summation differ by less, an error by far more."""
        return 1e-9 if self.cls.capabilities.fp64 else 2e-5

    def at(self, **setting: Value) -> None:
        """Records the present setting."""
        self.setting = setting

    def fail(self, reason: str, **values: Value) -> NoReturn:
        """Ends the check as failed at the present setting; the values show by how much."""
        self.setting |= values
        raise ViolationError(reason)

    def require(self, holds: bool, reason: str, **values: Value) -> None:
        """Fails unless `holds`."""
        if not holds:
            self.fail(reason, **values)

    def config(self, dim: int, length: int) -> MixerConfig:
        """A config sized for softmax attention's 4·D² parameters, or the smallest one where that budget is refused."""
        if (dim, length) not in self._configs:
            wanted = self.cls.Config(causal=self.causal, **self.options)
            try:
                found = self.cls.size(wanted, dim, length, 4 * dim * dim)
            except MixerError:
                found = min(
                    self.cls.candidates(wanted, dim, length), key=lambda c: self.cls.cost(c, dim, length).parameters
                )
            self._configs[dim, length] = found
        return self._configs[dim, length]

    def build(
        self, dim: int, length: int, dtype: torch.dtype = torch.float32, moved: bool = True, seed: int = 0
    ) -> Mixer:
        """A module. `moved` adds N(0, .02²) to every parameter: one that is zero would hide what it multiplies."""
        if dtype == torch.float64 and not self.cls.capabilities.fp64:
            self.not_applicable("declares fp64=False")
        torch.manual_seed(seed)
        mixer = self.cls(self.config(dim, length), dim, length).to(self.device, dtype)
        if moved:
            with torch.no_grad():
                for parameter in mixer.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.02)
        return mixer

    def case(
        self, batch: int, tokens: int, dim: int, dtype: torch.dtype = torch.float32, scale: float = 1.0, seed: int = 1
    ) -> Case:
        """`batch` rows of N(0, scale²) tokens, and one more where the mixer needs a constant row."""
        needs = self.cls.capabilities.needs
        constant_row = "constant row" in needs
        draw = torch.Generator("cpu").manual_seed(seed)
        shape = (batch + int(constant_row), tokens, dim)

        def drawn() -> Tensor:
            return torch.randn(shape, generator=draw, dtype=torch.float64, device="cpu")

        x_BTD = (drawn() * scale).to(self.device, dtype)
        embedding_BTD = drawn().to(self.device, dtype) if "embedding" in needs else None
        return Case(x_BTD, embedding_BTD, constant_row=constant_row)

    def not_applicable(self, reason: str) -> NoReturn:
        """Ends the check: it does not apply to this mixer."""
        raise NotApplicableError(reason)


def run(mixer: Mixer, case: Case) -> Tensor:
    """`forward` on a case."""
    y: Any = mixer(case.x_BTD, case.context)
    return y


def name_of(dtype: torch.dtype) -> str:
    """`float64` for torch.float64."""
    return str(dtype).removeprefix("torch.")


def peak(z: Tensor) -> float:
    """max|z|, 0 for an empty tensor."""
    return float(z.detach().abs().max()) if z.numel() else 0.0
