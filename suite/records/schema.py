"""The schema of a run's record: typed to the bottom, frozen, unknown fields refused."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, JsonValue, SerializeAsAny, ValidationInfo, field_validator

import tasks
from backbones.mixers.base import MixerConfig
from suite.config.run_config import RunConfig, Strict, digest
from suite.models.baseline_candidate import ORIGIN as BASELINE
from suite.models.candidate import registered
from suite.models.certificate import Certificate
from tasks.base import Domain, ImageInput, SeriesInput, TaskOptions, TextInput

BUILT_IN = "built-in"
SCHEMA = "mixer-suite/run/1"
Status = Literal["finished", "failed", "diverged", "interrupted"]
SplitName = Literal["valid", "valid_last", "test", "test_skip"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
#: Shown on terminals and pages, so without control characters
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
#: ISO 8601 with seconds and zone
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$")]


class UnloadedTaskOptions(TaskOptions):
    """Options of a third party's task, as recorded. Their class is not imported to read a record."""

    model_config = ConfigDict(extra="allow")


class UnloadedMixerOptions(MixerConfig):
    """Options of a third party's mixer, as recorded. Their class is not imported to read a record."""

    model_config = ConfigDict(extra="allow")


class RecordedConfig(RunConfig):
    """A RunConfig read from plain values: options of what ships with the suite get their class, others stay as they
    are.
    """

    @field_validator("data", mode="before")
    @classmethod
    def _data(cls, value: object, info: ValidationInfo) -> object:
        task = tasks.built_in(info.data.get("task", ""))
        return (task.Options if task else UnloadedTaskOptions).model_validate(value)

    @field_validator("mixer_options", mode="before")
    @classmethod
    def _mixer_options(cls, value: object, info: ValidationInfo) -> object:
        options: type[MixerConfig] = UnloadedMixerOptions
        name = info.data.get("mixer", "")
        if info.data.get("mixer_origin") in (BUILT_IN, BASELINE):
            candidate = registered(name)
            if candidate is None:
                raise ValueError(f"mixer {name!r} is unknown to this version")
            options = candidate.Options
        return options.model_validate(value)


class RecordedCertificate(Certificate):
    """A certificate read from plain values."""

    model_config = ConfigDict(allow_inf_nan=False)

    mixer_options: SerializeAsAny[UnloadedMixerOptions]


class Code(Strict):
    version: str
    git_sha: Annotated[str, Field(pattern="^[0-9a-f]{40}([0-9a-f]{24})?$")] | None
    git_dirty: bool | None
    mixer_origin: str


class Hardware(Strict):
    platform: str
    processor: str
    cores: int = Field(ge=1)
    memory_bytes: Count
    device: str
    threads: int = Field(ge=1)


class Data(Strict):
    """What the run read. `splits` counts `unit`s by split; the fingerprint is over the content of all splits."""

    fingerprint: str
    protocol: str
    source: str
    unit: str
    splits: dict[str, Count]
    details: dict[str, JsonValue]

    @field_validator("details", mode="before")
    @classmethod
    def _as_json(cls, value: object) -> object:
        return json.loads(json.dumps(value))  # a task may give tuples


class Selection(Strict):
    """Which checkpoint was tested, chosen on validation alone."""

    step: Count
    metric: str
    value: float


class Timing(Strict):
    """Seconds. `start_s`: from the command to the first step. Shares are of the training loop without evaluation."""

    wall_s: float
    start_s: float
    step_s: float
    data_s: float
    evaluation_s: float
    bookkeeping_s: float
    data_share: float
    bookkeeping_share: float
    examples_per_s: float
    steps_per_s: float


class Tracked(Strict):
    """The run in the tracking store, whose address holds no credentials and no folders."""

    run_id: str
    uri: str


class Record(Strict):
    """One run, whatever its status. `metrics` maps split to metric to value; only a finished run has any."""

    schema_: Literal["mixer-suite/run/1"] = Field(default="mixer-suite/run/1", alias="schema")
    kind: Literal["run"] = "run"
    id: Name
    status: Status
    error: str | None = None
    created: Time
    task: Name
    domain: Domain
    mixer: Name
    scale: Name
    seed: Count
    identity: Sha256
    group: Sha256
    config: RecordedConfig
    spec: Annotated[TextInput | ImageInput | SeriesInput, Field(discriminator="kind")]
    certificate: RecordedCertificate
    primary_metric: Name
    higher_is_better: bool
    metrics: dict[SplitName, dict[str, float]]
    n_evaluated: dict[SplitName, Annotated[int, Field(ge=1)]]
    selection: Selection | None = None
    loss_trace: list[tuple[Count, float]]
    data: Data
    code: Code
    versions: dict[str, str]
    hardware: Hardware
    precision: Literal["fp32", "bf16"]
    implementations: dict[str, str]
    timing: Timing | None = None
    peak_memory_bytes: Count
    resumed_at: list[Count]
    mlflow: Tracked | None = None
    hash: Sha256 | Literal[""] = ""

    @property
    def recounted(self) -> bool:
        """Whether reading the record recounts its certificate on this version's own code. A third party's mixer is not
        imported, so its certificate is what the record claims.
        """
        return self.config.mixer_origin == BUILT_IN

    def content(self) -> dict[str, Any]:
        """The record without its hash.

        Returns:
            Plain JSON values by field name.
        """
        return self.model_dump(mode="json", by_alias=True, exclude={"hash"})

    def sealed(self) -> Record:
        """The same record with its hash filled in.

        Returns:
            A copy whose `hash` is the sha256 over the canonical JSON of `content()`.
        """
        return self.model_copy(update={"hash": digest(self.content())})
