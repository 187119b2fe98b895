"""Every value that an option lists can be given, by `--set` and in a recipe; `none` is no value only where none is
listed.
"""

from __future__ import annotations

import pytest

import tasks
from backbones.baselines import registry as baselines
from backbones.mixers import registry
from suite.config.options import apply_sets, literals, validated
from suite.config.recipe import read_recipe
from suite.config.run_config import ModelConfig, TrainConfig
from suite.errors import UserError
from suite.models.candidate import parse
from suite.models.resolve import resolve


def option_classes():
    """Every class of options, with its section, once."""
    found = {ModelConfig: "model", TrainConfig: "train"}
    found |= {tasks.get(name).Options: "data" for name in tasks.names()}
    candidates = [*registry.names(), *baselines.names()]
    found |= {parse(name).Options: "mixer" for name in candidates}
    return found


def listed():
    return [
        pytest.param(model, section, name, value, id=f"{model.__name__}.{name}={value}")
        for model, section in option_classes().items()
        for name, field in model.model_fields.items()
        for value in literals(field.annotation)
    ]


#: What another option must be for a value to be allowed.
WITH = {("track", "searched"): {"look_back": "96"}, ("thousands", "point"): {"decimal": "comma"}}


@pytest.mark.parametrize(("model", "section", "name", "value"), listed())
def test_every_listed_value_can_be_given_in_a_set_and_in_a_recipe(tmp_path, model, section, name, value):
    others = WITH.get((name, value), {})
    sections: dict[str, dict[str, object]] = {section: {}}
    apply_sets(sections, [f"{key}={given}" for key, given in {**others, name: value}.items()], {section: model})
    (tmp_path / "own.toml").write_text(
        f"[{section}]\n" + "".join(f'{key} = "{given}"\n' for key, given in {**others, name: value}.items())
    )
    recipe = read_recipe(tmp_path / "own.toml")
    for values in (sections[section], recipe[section]):
        assert getattr(validated(section, model, values), name) == value


def test_the_listed_values_include_some_called_none():
    assert {parameter.values[2] for parameter in listed() if parameter.values[3] == "none"} >= {
        "augmentation",
        "thousands",
        "scaling",
    }


@pytest.mark.parametrize("text", ["none", "None", "null"])
def test_an_option_that_may_be_absent_is_so_by_the_word_none(text):
    absent = [
        (model, section, name)
        for model, section in option_classes().items()
        for name, field in model.model_fields.items()
        if type(None) in getattr(field.annotation, "__args__", ()) and not literals(field.annotation)
    ]
    assert absent
    for model, section, name in absent:
        assert getattr(validated(section, model, {name: text}), name) is None


def test_an_option_that_cannot_be_absent_names_the_word_that_was_given():
    with pytest.raises(UserError, match=r"train\.steps: .*'none' was given"):
        validated("train", TrainConfig, {"steps": "none"})


def test_the_whole_way_from_a_command_keeps_the_value_none(tmp_path):
    config = resolve(task="folder", mixer="softmax", scale="board", sets=["augmentation=none"])
    assert config.recorded()["data"]["augmentation"] == "none"
    config = resolve(task="csv", mixer="baseline/dlinear", scale="board", sets=["mixer.scaling=none"])
    assert config.recorded()["mixer_options"]["scaling"] == "none"
