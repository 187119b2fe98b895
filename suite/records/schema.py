"""The schema of a run's record: typed to the bottom, frozen, unknown fields refused."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    field_serializer,
    field_validator,
    model_serializer,
)

from suite.config.identity import digest
from suite.config.run_config import BUILT_IN, Strict
from suite.models.candidate import registered
from suite.records.recorded import RecordedCertificate, RecordedConfig
from tasks.base import Domain, ImageInput, SeriesInput, TextInput

SCHEMA = "mixer-suite/run/2"
Status = Literal["finished", "failed", "diverged", "interrupted"]
SplitName = Literal["valid", "valid_last", "test", "test_skip"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
NotNegative = Annotated[float, Field(ge=0)]
#: Shown on terminals and pages, so without control characters
Name = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]


def _is_a_time(text: str) -> str:
    datetime.fromisoformat(text)  # a month 13 has the form of a time
    return text


#: ISO 8601 with seconds and zone
Time = Annotated[
    str,
    Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$"),
    AfterValidator(_is_a_time),
]


def _without(content: dict[str, Any], name: str) -> dict[str, Any]:
    """The content as earlier versions wrote it, where a field that they had not holds nothing."""
    return {field: value for field, value in content.items() if field != name or value is not None}


class Code(Strict):
    version: str
    git_sha: Annotated[str, Field(pattern="^[0-9a-f]{40}([0-9a-f]{24})?$")] | None
    git_dirty: bool | None
    task_origin: str
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
    """Seconds. `start_s`: from the beginning of the command, or of its run within a sweep, to the first step. Shares
    are of the training loop without evaluation. `decoded_per_s`: tokens, one sequence at a time, if the model decodes.
    """

    wall_s: NotNegative
    start_s: NotNegative
    step_s: NotNegative
    data_s: NotNegative
    evaluation_s: NotNegative
    bookkeeping_s: NotNegative
    data_share: NotNegative
    bookkeeping_share: NotNegative
    examples_per_s: NotNegative
    steps_per_s: NotNegative
    decoded_per_s: NotNegative | None = None  # left out where it was not measured, and by earlier versions

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(write(self), "decoded_per_s")


class Tracked(Strict):
    """The run in the tracking store, whose address holds no credentials and no folders."""

    run_id: str
    uri: str


class Versions(Strict):
    """What decides whether runs are comparable: a board has one version of its task and of training, a row one version
    of its mixer.
    """

    task: int = Field(ge=1)
    mixer: int = Field(ge=1)
    training: int = Field(ge=1)


class Race(Strict):
    """The place of a run in its mixer's race: of the first rates, of the best two, of a rate added at the edge of the
    window, or of the softmax parameter curve.
    """

    lr: float
    seed: Count
    role: Literal["screening", "final", "moved", "curve"]


class Threads(Strict):
    """Threads that computed, and how idle ones wait."""

    count: int = Field(ge=1)
    wait_policy: Literal["active", "brief", "passive"]


class Parallel(Strict):
    """Processes that trained one model together."""

    world_size: int = Field(ge=1)
    strategy: Literal["ddp", "fsdp2"]


class Contract(Strict):
    """Whether the mixer passed the contract, and which version of it."""

    checked: bool
    version: int = Field(ge=1)


class TestUnits(Strict):
    """The primary metric of the tested checkpoint by test unit: its value on a unit is sum / count, that of the test
    set the ratio of the totals. Every record of the same data has the same units and counts.

    word: what the units are: addresses, images, weeks; more than 128 are in 128 random groups.
    sums: rounded to 10 significant digits.
    """

    __test__ = False  # no class of tests

    word: Annotated[str, Field(pattern="^[a-z][a-z0-9 ]{0,40}$")]
    sums: Annotated[list[NotNegative], Field(min_length=2, max_length=128)]
    counts: Annotated[list[NotNegative], Field(min_length=2, max_length=128)]


class Record(Strict):
    """One run, whatever its status. `metrics` maps split to metric to value; a finished run has those of its selected
    checkpoint, a diverged one those of its untrained model. None means that something was not recorded.
    """

    schema_: Literal["mixer-suite/run/2"] = Field(default="mixer-suite/run/2", alias="schema")
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
    versions: Versions
    config: RecordedConfig
    spec: Annotated[TextInput | ImageInput | SeriesInput, Field(discriminator="kind")]
    certificate: RecordedCertificate
    primary_metric: Name
    higher_is_better: bool
    metrics: dict[SplitName, dict[str, float]]
    n_evaluated: dict[SplitName, Annotated[int, Field(ge=1)]]
    test_units: TestUnits | None = None  # left out where the task has none, and by earlier versions
    selection: Selection | None = None
    loss_trace: list[tuple[Count, float]]
    data: Data
    code: Code
    packages: dict[str, str]
    hardware: Hardware
    precision: Literal["fp32", "bf16"]
    implementations: dict[str, str]
    product_path: str | None = None  # what computes the matrix products
    deterministic: bool | None = None  # PyTorch's deterministic algorithms
    threads: Threads | None = None
    parallel: Parallel | None = None
    race: Race | None = None
    contract: Contract | None = None
    timing: Timing | None = None
    peak_memory_bytes: Count
    resumed_at: list[Count]
    mlflow: Tracked | None = None
    hash: Sha256 | Literal[""] = ""

    @field_serializer("config")
    def _recorded(self, config: RecordedConfig) -> dict[str, Any]:
        return config.recorded()

    @model_serializer(mode="wrap")
    def _written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(write(self), "test_units")

    @property
    def recounted(self) -> bool:
        """Whether reading the record recounts its certificate on this version's own code. The certificate of a third
        party's mixer, whose code is not imported, and of an earlier version of a mixer is what the record claims.
        """
        own = registered(self.mixer) if self.config.mixer_origin == BUILT_IN else None
        return own is not None and own.version == self.versions.mixer

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
