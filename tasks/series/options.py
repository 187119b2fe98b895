"""Options of forecasting tasks: horizon, look-back, patches and kind of forecast. All of them are part of a run's
identity.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.base import HeadName, TaskOptions

LOOK_BACKS = {"fixed-96": 96, "fixed-336": 336}
SEARCHED = (96, 192, 336, 512, 720)  # on the track `searched`, validation chooses among these look-backs


class WindowOptions(TaskOptions):
    """Options of every forecasting task. Subclasses add the look-back, as `look_back`."""

    horizon: int = Field(
        default=96, ge=1, le=720, description="steps to forecast; the field reports 96, 192, 336 and 720"
    )
    patch: int = Field(default=16, ge=1, le=336, description="steps in a patch")
    stride: int = Field(default=8, ge=1, le=336, description="steps from one patch to the next")
    head: HeadName = Field(
        default="point", description="kind of forecast: a point, a student-t, or quantiles 0.1 to 0.9 (quantile)"
    )
    valid_limit: int = Field(
        default=512, ge=0, description="validation windows scored, evenly spread over the split; 0: all"
    )
    test_limit: int = Field(default=0, ge=0, description="test windows scored, evenly spread over the split; 0: all")


class ForecastOptions(WindowOptions):
    """The two fixed look-backs. All options are part of a run's identity; tracks never share a board."""

    track: Literal["fixed-336", "fixed-96"] = Field(default="fixed-336", description="the look-back: 336 or 96 steps")

    @property
    def look_back(self) -> int:
        return LOOK_BACKS[self.track]

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        check_patch(self.patch, self.look_back)
        return self


class SearchedOptions(WindowOptions):
    """The fixed look-backs and the track `searched`, where each look-back of a fixed list is a separate trial.

    All trials forecast the same validation and test steps; for each mixer, the board shows the one that is best on
    validation.
    """

    track: Literal["fixed-336", "fixed-96", "searched"] = Field(
        default="fixed-336",
        description="the look-back: 336 or 96 steps; searched: validation chooses among 96, 192, 336, 512 and 720",
    )
    look_back: int = Field(
        default=0, ge=0, description="steps that a forecast reads; 0: the track's. Required on the track searched"
    )

    @model_validator(mode="after")
    def _look_back_is_the_tracks(self) -> Self:
        allowed = SEARCHED if self.track == "searched" else (LOOK_BACKS[self.track],)
        if self.look_back not in allowed and (self.look_back or len(allowed) > 1):
            listed = ", ".join(map(str, allowed))
            hint = (
                "choose a trial with --set look_back=…"
                if self.track == "searched"
                else "other look-backs are trials of --track searched"
            )
            raise ValueError(f"track {self.track} has a look-back of {listed}, not {self.look_back}; {hint}")
        # the model is frozen, and a record must show the value used
        self.__dict__["look_back"] = self.look_back or allowed[0]
        check_patch(self.patch, self.look_back)
        return self

    def tuned(self) -> frozenset[str]:
        return frozenset({"look_back"}) if self.track == "searched" else frozenset()


def check_patch(patch: int, look_back: int) -> None:
    """Raises ValueError if a patch is longer than the look-back."""
    if patch > look_back:
        raise ValueError(f"patch {patch} is longer than the look-back of {look_back}; allowed are 1 to {look_back}")


class RepositoryOptions(WindowOptions):
    """Options of GluonTS's data sets. The horizon is the data set's own."""

    dataset: str = Field(
        default="m4_hourly", min_length=1, description="name in GluonTS's repository, such as m4_hourly"
    )
    look_back: int = Field(
        default=96, ge=1, le=4096, description="steps that a forecast reads; shorter histories are extended backwards"
    )
    horizon: int = Field(
        default=0, ge=0, description="steps to forecast: 0 or the data set's own number, which mean the same"
    )
    valid_limit: int = Field(
        default=512, ge=0, description="validation windows scored, one per series, evenly spread; 0: all"
    )

    @model_validator(mode="after")
    def _patch_fits(self) -> Self:
        check_patch(self.patch, self.look_back)
        return self
