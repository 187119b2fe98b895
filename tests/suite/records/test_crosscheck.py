"""A record that contradicts itself is refused by the name of the field, and costs no other record its board."""

from __future__ import annotations

import contextlib
import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from backbones.mixers.fem.fem import FemSoftmax, KeyedFemConfig
from suite.boards.board import boards
from suite.boards.markdown import markdown
from suite.cli.commands import doctor
from suite.config.identity import digest, introduced
from suite.records import record
from suite.records.collection import read_all
from suite.records.record import RecordError
from suite.records.recorded import RecordedConfig
from suite.records.schema import SCHEMA, Record
from tasks.images.fashion_mnist import FashionMnist, FashionMnistOptions
from tests.suite.records import edited
from tests.suite.tiny import made_record

#: Values that a run claims or measured and that nothing else in its record determines. All others are checked.
FREE = (
    "id",
    "created",
    "code.version",
    "code.git_*",
    "data.fingerprint",
    "data.protocol",
    "data.source",
    "data.unit",
    "data.details.*",
    "data.splits.train",
    "packages.*",
    "product_path",
    "deterministic",
    "parallel.world_size",
    "contract.*",
    "hardware.platform",
    "hardware.processor",
    "hardware.cores",
    "hardware.memory_bytes",
    "hardware.device",
    "implementations.*",
    "peak_memory_bytes",
    "resumed_at.*",
    "metrics.test.*",
    "metrics.valid_last.*",
    "metrics.valid.loss",
    "metrics.valid.top5",
    "loss_trace.*.1",
    "timing.wall_s",
    "timing.start_s",
    "timing.evaluation_s",
    "mlflow.*",
)


@pytest.fixture(scope="module")
def sound() -> dict[str, Any]:
    return edited.plain(edited.full_record())


def name_of(path: edited.Place) -> str:
    return ".".join(map(str, path))


def is_free(path: edited.Place) -> bool:
    return any(fnmatchcase(name_of(path), pattern) for pattern in FREE)


def fault_of(content: dict[str, Any]) -> str:
    """Why a record with these values is refused; empty where it is not."""
    try:
        parsed(content)
    except RecordError as error:
        return str(error)
    return ""


def parsed(content: dict[str, Any]) -> Record:
    return record.parse(json.dumps({**content, "hash": digest({k: v for k, v in content.items() if k != "hash"})}))


#: Values of which one follows from the other: the fault may name either
PAIRS = {"metrics": "selection.value", "selection": "metrics.valid", "data": "n_evaluated", "hardware": "threads"}


def names(fault: str, path: edited.Place) -> bool:
    """Whether a fault names the changed field or the part of the record it is in. A changed option is named by the
    identity, which covers all of them, or by its copy in the record.
    """
    field, top = fault.partition(": ")[0], str(path[0])
    if top == "config" and field in ("identity", path[-1]):
        return True
    return any(field == part or field.startswith(f"{part}.") for part in (top, PAIRS.get(top, top)))


def test_the_record_that_the_others_are_edited_from_is_sound_and_complete(sound):
    assert fault_of(sound) == ""
    assert [name_of(path) for path in edited.leaves(sound) if edited.at(sound, path) is None] == ["error"]


FIELDS = sorted({field.alias or name for name, field in Record.model_fields.items()} - {"hash"})


@pytest.mark.parametrize("field", FIELDS)
def test_a_changed_value_is_refused_by_its_name_unless_it_is_free(sound, field):
    accepted, unnamed = [], {}
    paths = [path for path in edited.leaves(sound) if path[0] == field]
    assert paths
    for path in paths:
        fault = fault_of(edited.changed(sound, path, edited.another(edited.at(sound, path))))
        assert "\n" not in fault
        if not fault:
            accepted.append(name_of(path))
        elif not names(fault, path):
            unnamed[name_of(path)] = fault
    assert unnamed == {}
    assert accepted == [name_of(path) for path in paths if is_free(path)]


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_value_is_refused_by_its_name(sound, field):
    paths = [path[: i + 1] for path in edited.leaves(sound) if path[0] == field for i in range(len(path))]
    for path in sorted(set(paths), key=str):
        fault = fault_of(edited.without(sound, path))
        free_entry = is_free(path) and path[0] in ("packages", "implementations", "data", "resumed_at")
        older = path == ("certificate", "flops_verified")  # records made before this field leave it out
        assert names(fault, path) or ((free_entry or older) and not fault), (name_of(path), fault)


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "value",
    [
        [],
        "text",
        1e300,
        None,
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param([{}], marks=pytest.mark.slow),
        pytest.param(-1, marks=pytest.mark.slow),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(sound, field, value):
    for path in edited.leaves(sound):
        same_type = type(edited.at(sound, path)) is type(value) or value == edited.at(sound, path)
        if path[0] == field and not same_type and not name_of(path).startswith("data.details."):
            fault = fault_of(edited.changed(sound, path, value))
            optional = value is None and is_free(path)
            measured = is_free(path) and isinstance(value, float)
            assert names(fault, path) or optional or measured, (name_of(path), fault)


@pytest.mark.parametrize("value", [10**400, 2**63, -(2**63) - 1])
def test_an_integer_of_more_than_64_bits_is_refused_in_any_field(sound, value):
    for path in edited.leaves(sound):
        if type(edited.at(sound, path)) is int:
            assert "more than 64 bits" in fault_of(edited.changed(sound, path, value)), name_of(path)


@pytest.mark.parametrize("value", ["2026-13-45T99:99:99Z", "2026-02-30T00:00:00Z"])
def test_a_time_that_no_calendar_has_is_refused(sound, value):
    assert fault_of({**sound, "created": value}).startswith("created")


def with_hashes(content: dict[str, Any]) -> dict[str, Any]:
    """The record after an edit by someone who also computed the identity and the group again."""
    config = RecordedConfig.model_validate(content["config"])
    copies = {name: content["config"][name] for name in ("task", "mixer", "scale", "seed")}
    return {**content, **copies, "identity": config.identity, "group": config.group}


#: option: a value that the rest of the record contradicts, and the field that the fault names
FORGED = [
    (("config", "mixer_options", "d_v"), 96, "certificate.matched"),
    (("config", "mixer_options", "causal"), True, "config.mixer_options.causal"),
    (("config", "mixer_options", "lse"), False, "certificate."),
    (("config", "model", "dim"), 2048, "certificate."),
    (("config", "model", "depth"), 10**9, "config.model.depth"),
    (("config", "model", "ffn_width"), 8, "certificate."),
    (("config", "data", "patch"), 7, "spec.patch"),
    (("config", "hybrid"), [1], "certificate."),
    (("config", "hybrid"), [99], "config.hybrid"),
    (("config", "skip_variant_layers"), True, "config.skip_variant_layers"),
    (("config", "train", "steps"), 10**9, "loss_trace"),
    (("config", "train", "batch_size"), 7, "timing.examples_per_s"),
    (("config", "train", "precision"), "bf16", "precision"),
    (("config", "scale"), "huge", "config.scale"),
    (("config", "task"), "cifar10", "config.data"),
    (("config", "mixer"), "softmax", "config.mixer_options"),
    (("config", "mixer_origin"), "a-package 1.0", "config.mixer_origin"),
]


@pytest.mark.parametrize(("path", "value", "field"), FORGED, ids=[name_of(path) for path, _, _ in FORGED])
def test_an_option_edited_together_with_its_identity_is_refused(sound, path, value, field):
    content = edited.changed(sound, path, value)
    with contextlib.suppress(ValueError):  # where there is no such config, the schema refuses it
        content = with_hashes(content)
    assert fault_of(content).startswith(field)


def test_a_finished_run_without_its_results_is_refused(sound):
    nothing: dict[str, Any] = {"selection": None, "timing": None, "metrics": {}, "n_evaluated": {}, "loss_trace": []}
    for name, value in nothing.items():
        assert fault_of({**sound, name: value}).startswith(name)


@pytest.mark.parametrize("status", ["failed", "diverged", "interrupted"])
def test_a_run_that_did_not_finish_has_a_reason_and_no_results(sound, status):
    unfinished = edited.plain(made_record("fem", status=status))
    assert fault_of(unfinished) == ""
    assert fault_of({**unfinished, "error": None}).startswith("error")
    for name in ("metrics", "n_evaluated", "selection", "timing"):
        assert fault_of({**unfinished, name: sound[name]}) != ""


def test_a_diverged_run_may_have_the_figures_of_its_untrained_model(sound):
    diverged = edited.plain(made_record("fem", status="diverged"))
    figures = {name: {s: sound[name][s] for s in ("valid", "test")} for name in ("metrics", "n_evaluated")}
    assert fault_of({**diverged, **figures}) == ""
    assert fault_of({**diverged, **figures, "metrics": {"test": figures["metrics"]["test"]}}).startswith("metrics")
    assert fault_of({**diverged, **figures, "n_evaluated": {"valid": 1, "test": 1}}).startswith("n_evaluated")
    assert fault_of({**diverged, **figures, "status": "failed"}).startswith("metrics")


@pytest.mark.parametrize("task", ["sotu", "household-power", "mqar", "fashion-mnist"])
@pytest.mark.parametrize("mixer", ["softmax", "hyperglu"])
def test_a_sound_record_of_every_domain_is_accepted(task, mixer):
    assert fault_of(edited.plain(made_record(mixer, task=task))) == ""


def test_a_record_older_than_a_field_of_its_certificate_is_read(sound):
    without = {name: value for name, value in sound["certificate"].items() if name != "flops_verified"}
    old = with_hashes({**sound, "certificate": without})
    assert sound["certificate"]["flops_verified"] is True
    assert fault_of(old) == ""
    assert "flops_verified" not in parsed(old).content()["certificate"]
    forged = edited.changed(sound, ("certificate", "flops_verified"), False)
    assert fault_of(forged).startswith("certificate.flops_verified")


def test_a_record_is_read_without_importing_a_third_partys_code(sound, monkeypatch):
    """Its counts of its own model are taken as recorded; what does not depend on its code is checked."""
    theirs = {"mixer": "mine.py:Mine", "mixer_origin": "mine.py@0123456789ab"}
    options = {"causal": False, "heads": 2, "width": 7, "kinds": ["a", "b"]}
    content = {
        **sound,
        "config": {**sound["config"], **theirs, "mixer_options": options},
        "certificate": {**sound["certificate"], "mixer": theirs["mixer"], "mixer_options": options},
        "code": {**sound["code"], "mixer_origin": theirs["mixer_origin"]},
    }
    content = with_hashes(content)
    monkeypatch.setattr("backbones.mixers.registry._load_file", lambda *_: pytest.fail("a file was loaded"))
    monkeypatch.setattr("backbones.mixers.registry._load_entry", lambda *_: pytest.fail("a package was loaded"))
    assert fault_of(content) == ""
    read = parsed(content)
    assert not read.recounted
    assert read.config.mixer_options.model_dump() == options
    assert fault_of(edited.changed(content, ("certificate", "total_parameters"), 1)) == ""
    for name, value in (("reference_parameters", 1), ("ratio", 0.5), ("matched", False), ("dim", 1), ("hybrid", [1])):
        assert fault_of(edited.changed(content, ("certificate", name), value)).startswith(f"certificate.{name}")
    for origin in ("built-in", "baseline", "other.py@0123456789ab", "a-package 1.0"):
        forged = edited.changed(content, ("config", "mixer_origin"), origin)
        assert fault_of(forged).startswith("config.mixer_o")


def test_an_option_added_later_leaves_a_record_as_it_was(sound, monkeypatch):
    class LaterData(FashionMnistOptions):
        added: int = introduced(3)

    class LaterMixer(KeyedFemConfig):
        added: bool = introduced(False, now=True)

    monkeypatch.setattr(FashionMnist, "Options", LaterData)
    monkeypatch.setattr(FemSoftmax, "Config", LaterMixer)
    read = parsed(sound)
    assert (read.config.data.model_dump()["added"], read.config.mixer_options.model_dump()["added"]) == (3, False)
    assert edited.plain(read) == sound
    written = edited.changed(sound, ("config", "data", "added"), 3)
    assert fault_of(written).startswith("config.data.added")  # records leave it out


def test_a_record_of_an_earlier_version_is_read_and_not_counted_again(sound, monkeypatch):
    monkeypatch.setattr(FemSoftmax, "version", 99)
    monkeypatch.setattr(FashionMnist, "version", 99)
    assert fault_of(sound) == ""
    assert not parsed(sound).recounted
    assert fault_of(edited.changed(sound, ("certificate", "flops"), 1)) == ""
    assert fault_of(edited.changed(sound, ("certificate", "reference_flops"), 1)).startswith(
        "certificate.reference_flops"
    )
    for name, current in (("task", 99), ("mixer", 99), ("training", 1)):
        assert fault_of(edited.changed(sound, ("versions", name), current + 1)).startswith(f"versions.{name}")


@pytest.mark.parametrize("schema", ["mixer-suite/run/1", "mixer-suite/run/3", "", None])
def test_a_record_of_another_schema_is_refused_by_its_name(sound, schema):
    fault = fault_of({**sound, "schema": schema})
    assert fault.startswith("schema")
    assert repr(schema) in fault
    assert repr(SCHEMA) in fault


@pytest.mark.parametrize("path", ["/etc/hostname", "../../elsewhere/tokenizer.json"])
def test_a_record_that_names_a_path_is_refused_before_anything_is_opened(path, monkeypatch):
    content = edited.plain(made_record(task="text"))
    assert fault_of(content) == ""
    monkeypatch.setattr("tasks.text.tokenizer_options.read_definition", lambda *_: pytest.fail("a file was opened"))
    content = edited.changed(content, ("config", "data", "tokenizer"), path)
    assert fault_of(content).startswith("config.data: a path")


@pytest.mark.parametrize("part", ["config", "data", "spec", "certificate", "timing", "metrics", "versions", "hardware"])
@pytest.mark.parametrize("value", [[], {}, [[]], 3, "text", None, {"kind": "image"}])
def test_a_part_of_another_shape_is_refused_by_its_name(sound, part, value):
    for path in [(part,), *({path[:2] for path in edited.leaves(sound) if path[0] == part and len(path) > 2})]:
        fault = fault_of(edited.changed(sound, path, value))
        free = name_of(path) == "data.details" and isinstance(value, dict)
        assert fault.startswith(part) or (part == "data" and fault.startswith("n_evaluated")) or free, (path, fault)


def test_a_number_too_large_for_a_float_is_refused(sound):
    for path in (("data", "details", "classes"), ("timing", "wall_s"), ("config", "train", "lr")):
        text = json.dumps(edited.changed(sound, path, 0.1234567)).replace("0.1234567", "1e999")
        assert text.count("1e999") == 1
        with pytest.raises(RecordError):
            record.parse(text)


MALFORMED = {
    "an empty certificate": (("certificate",), {}, "certificate"),
    "no primary metric": (("metrics",), {"test": {}}, "metrics"),
    "no training options": (("config", "train"), {}, "config.train"),
    "another mixer's name": (("mixer",), "softmax", "mixer"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_record_costs_its_neighbour_nothing(suite, runs, monkeypatch, sound, name):
    path, value, field = MALFORMED[name]
    bad = edited.write(runs / "bad", edited.changed(sound, path, value))
    edited.write(runs / "good", edited.plain(made_record("fem")))
    shown = suite("leaderboard", "--json")
    assert shown.code == 0
    assert [row["mixer"] for board in json.loads(shown.out) for row in board["rows"]] == ["fem"]
    assert "1 record(s) left out" in " ".join(suite("leaderboard").out.split())
    monkeypatch.setattr(doctor, "_check_store", lambda: doctor.Check("tracking store", True, ""))
    ended = suite("doctor", "--json")
    [check] = [check for check in json.loads(ended.out) if check["name"] == "records"]
    assert (ended.code, check["ok"]) == (1, False)
    assert f"{bad}: {field}" in check["message"]
    assert "good" not in check["message"]


def test_every_edited_record_is_named_by_the_doctor_and_costs_no_board(suite, runs, monkeypatch, sound):
    refused = {name_of(path): path for path in edited.leaves(sound) if not is_free(path) and path != ("hash",)}
    for name, path in refused.items():
        edited.write(runs / name, edited.changed(sound, path, edited.another(edited.at(sound, path))))
    edited.write(runs / "good", edited.plain(made_record("fem")))
    found = read_all()
    assert len(found.refused) == len(refused) > 80
    [board] = boards(found.records, found.refused)
    assert [row.mixer for row in board.rows] == ["fem"]
    assert board.refused == len(refused) - 1  # the one that claims another task is counted there
    assert f"{board.refused} record(s) left out" in markdown(board)
    shown = suite("leaderboard", "--json")
    assert shown.code == 0
    assert [row["runs"] for board in json.loads(shown.out) for row in board["rows"]] == [["fem-0"]]
    monkeypatch.setattr(doctor, "_check_store", lambda: doctor.Check("tracking store", True, ""))
    ended = suite("doctor", "--json")
    [check] = [check for check in json.loads(ended.out) if check["name"] == "records"]
    assert ended.code == 1
    for name, path in refused.items():
        [fault] = [part for part in check["message"].split("\n") if part.startswith(f"{runs / name / record.NAME}: ")]
        assert names(fault.partition(": ")[2], path)
