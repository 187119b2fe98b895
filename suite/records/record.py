"""The record of a run: a strict schema, a hash over its canonical form, nothing in it evaluated or unpickled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from suite.config.run_config import canonical_json, digest
from tasks.storage.cache import write_atomically

SCHEMA = "mixer-suite/run/1"
NAME = "record.json"
MAX_BYTES = 65_536

Status = Literal["finished", "failed", "diverged", "interrupted"]


class RecordError(Exception):
    """A record that is not what its schema or its hash says. One line."""

    exit_code = 2


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Code(Strict):
    version: str
    git_sha: str | None
    git_dirty: bool | None
    mixer_origin: str


class Hardware(Strict):
    platform: str
    processor: str
    cores: int
    memory_bytes: int
    device: str
    threads: int


class Data(Strict):
    fingerprint: str
    protocol: str
    source: str
    splits: dict[str, int]
    details: dict[str, Any] = {}


class Selection(Strict):
    """Which checkpoint was tested, chosen on validation alone."""

    step: int
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


class Record(Strict):
    """One run, whatever became of it. `metrics` maps split to name to value; `test` is there only when the run
    finished.
    """

    schema_: Literal["mixer-suite/run/1"] = Field(default="mixer-suite/run/1", alias="schema")
    kind: Literal["run"] = "run"
    id: str
    status: Status
    error: str | None = None
    created: str
    task: str
    domain: str
    mixer: str
    scale: str
    seed: int
    identity: str
    group: str
    config: dict[str, Any]
    certificate: dict[str, Any]
    primary_metric: str
    higher_is_better: bool
    metrics: dict[str, dict[str, float]]
    n_evaluated: dict[str, int] = {}
    selection: Selection | None = None
    loss_trace: list[tuple[int, float]] = []
    data: Data | None = None
    code: Code
    versions: dict[str, str]
    hardware: Hardware
    precision: str
    implementations: dict[str, str] = {}
    timing: Timing | None = None
    peak_memory_bytes: int
    resumed_at: list[int] = []
    mlflow: dict[str, str] | None = None
    hash: str = ""

    def content(self) -> dict[str, Any]:
        """Plain JSON values, without the hash."""
        return self.model_dump(mode="json", by_alias=True, exclude={"hash"})

    def sealed(self) -> Record:
        """The same record with its hash filled in."""
        return self.model_copy(update={"hash": digest(self.content())})


def write(run_dir: Path, record: Record) -> Path:
    """Seals the record and writes `record.json` atomically. Raises OSError, and RecordError over 64 KB."""
    sealed = record.sealed()
    text = json.dumps({**sealed.content(), "hash": sealed.hash}, indent=1, sort_keys=True, allow_nan=False) + "\n"
    if len(text) > MAX_BYTES:
        raise RecordError(f"record {record.id} has {len(text)} bytes, {MAX_BYTES} are allowed")
    path = run_dir / NAME
    write_atomically(path, lambda temporary: temporary.write_text(text, "utf-8"))
    return path


def read(path: Path) -> Record:
    """A record from its file. Raises RecordError when it is damaged, does not fit the schema, or its hash is off."""
    try:
        record = Record.model_validate_json(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecordError(f"{path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "content"
        raise RecordError(f"{path} does not fit the schema: {where}: {first['msg']}") from None
    if record.hash != digest(record.content()):
        raise RecordError(f"{path}: the hash does not match the content (was it edited?)")
    return record


def same_figures(a: Record, b: Record) -> bool:
    """Whether two records hold the same metrics, bit for bit."""
    return canonical_json(a.metrics) == canonical_json(b.metrics)
