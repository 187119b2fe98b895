"""Another value of any option of any section is another identity, for every task and every mixer."""

from __future__ import annotations

from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import ValidationError

from suite.config.run_config import ModelConfig, RunConfig, TrainConfig
from suite.models.resolve import resolve
from tests.suite.config.test_listed_values import option_classes

PLACE = {"data": "data", "mixer": "mixer_options", "model": "model", "train": "train"}
#: Options whose other values need another option to change with them.
TOGETHER: dict[str, dict[str, Any]] = {"track": {"look_back": 0}}
SHA = "a" * 64  # of a tokenizer's file, which may be elsewhere
TOKENIZER = {"tokenizer": "own.json", "vocab": 300, "tokenizer_sha256": SHA}
#: Fixed by another option: a look-back has one value on each fixed track.
OTHER: dict[str, dict[str, Any]] = {
    "look_back": {"track": "searched", "look_back": 192},
    "tokenizer": TOKENIZER,
    "vocab": {"tokenizer": "bpe", "vocab": 999, "tokenizer_sha256": ""},
    "tokenizer_sha256": TOKENIZER,
}


def other_values(name: str, annotation: Any, value: Any) -> list[Any]:
    if get_origin(annotation) is Literal:
        return [other for other in get_args(annotation) if other != value]
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if parts and get_origin(parts[0]) is Literal:
        return [other for other in get_args(parts[0]) if other != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1, value - 1, value * 2, value // 2, value + 2]
    if isinstance(value, float):
        return [value / 2, value + 0.25, value + 1]
    if isinstance(value, str):
        return [value + "2", "text", "gpt2", "bytes", "cifar", "8,16", "32,8192", "32,64", "5,10"]
    if isinstance(value, tuple):
        return [("x",), (1,), (1, 2), (2, 4)]
    kind = parts[0] if parts else str
    return [1, 2, 4, 8, 0.5, True, "x"] if kind is not bool else [True]


def cases():
    return [
        pytest.param(model, section, name, id=f"{model.__name__}.{name}")
        for model, section in option_classes().items()
        for name in model.model_fields
    ]


@pytest.fixture(scope="module")
def base() -> RunConfig:
    return resolve(task="csv", mixer="softmax", scale="board")


@pytest.mark.parametrize(("model", "section", "name"), cases())
def test_another_value_of_an_option_is_another_identity(base, model, section, name):
    options = {ModelConfig: base.model, TrainConfig: base.train}.get(model)
    plain = options or (model(causal=False) if section == "mixer" and "causal" in model.model_fields else model())
    before = base.model_copy(update={PLACE[section]: plain})
    values = dict(plain)
    tried = [OTHER[name]] if name in OTHER and OTHER[name].keys() <= values.keys() else []
    tried += [
        {name: v, **TOGETHER.get(name, {})}
        for v in other_values(name, model.model_fields[name].annotation, values[name])
    ]
    for change in tried:
        kept = {key: value for key, value in change.items() if key in values}
        try:
            changed = model.model_validate({**values, **kept})
        except (ValidationError, OSError):
            continue
        if getattr(changed, name) == values[name]:
            continue
        after = base.model_copy(update={PLACE[section]: changed})
        assert after.identity != before.identity
        return
    pytest.fail(f"this test knows no other value of {name}")
