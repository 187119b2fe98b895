"""A record in which one value was changed, left out or replaced is refused by the name of the field."""

from __future__ import annotations

import contextlib
import json

import pytest

from suite.records import record
from suite.records.record import RecordError
from suite.records.schema import SCHEMA, Record
from tests.suite.records import edited
from tests.suite.records.faults import fault_of, is_free, name_of, names, with_hashes
from tests.suite.tiny import made_record


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
        older = path in (("certificate", "flops_verified"), ("test_units",))  # earlier records leave them out
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
