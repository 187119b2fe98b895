"""The base class of a mixer's options, apart from `Mixer`: reading a config imports no PyTorch."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MixerConfig(BaseModel):
    """Options of a mixer. Frozen; unknown options are refused. Widths that are None are solved for the budget."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    causal: bool = Field(default=True, description="a position sees itself and the past only")
    heads: int = Field(default=4, ge=1, description="number of heads")

    @classmethod
    def solved_options(cls) -> list[str]:
        """Options that the budget solver chooses where the user does not: those whose default is None.

        Returns:
            Their names.
        """
        return [name for name, field in cls.model_fields.items() if field.default is None]
