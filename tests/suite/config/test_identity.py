"""Hashes stay what they are when options are added, and follow every option's value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, SerializeAsAny

from backbones.mixers.base import MixerConfig
from backbones.mixers.fem.fem import KeyedFemConfig
from suite.config.identity import digest, introduced, introduced_values, significant, without
from suite.config.run_config import OF_A_ROW, ModelConfig, RunConfig, TrainConfig
from suite.models.resolve import resolve
from tasks.base import TaskOptions
from tasks.images.fashion_mnist import FashionMnistOptions
from tests.tasks.third_party import NAMED


def config(**more: Any) -> RunConfig:
    return resolve(task="fashion-mnist", mixer="fem", scale="board", **more)


# --- The same configs in a later version, which has one more option everywhere
# -----------------------------------------------------------------------------


class LaterModel(ModelConfig):
    added: bool = introduced(False)


class LaterTrain(TrainConfig):
    added: int = introduced(0, ge=0)


class LaterData(FashionMnistOptions):
    added: tuple[int, ...] = Field((1, 2), json_schema_extra={"introduced_with": [1, 2]})


class LaterMixer(KeyedFemConfig):
    added: str = Field("no", json_schema_extra={"introduced_with": "no"})


class LaterConfig(RunConfig):
    model: SerializeAsAny[ModelConfig] = LaterModel()
    train: SerializeAsAny[TrainConfig] = LaterTrain()
    added: float = introduced(0.5)


SECTIONS: dict[str, Any] = {"data": LaterData, "mixer_options": LaterMixer, "model": LaterModel, "train": LaterTrain}
#: where the option was added: another value of it
OTHER: dict[str, Any] = {"data": [3], "mixer_options": "yes", "model": True, "train": 7, "": 0.25}


def later(earlier: RunConfig, section: str | None = None, **top: Any) -> RunConfig:
    """The config in the later version; in one section with another value of the new option."""
    content = earlier.canonical() | top
    for name, model in SECTIONS.items():
        new = {"added": OTHER[name]} if name == section else {}
        content[name] = model.model_validate({**content[name], **new})
    return LaterConfig.model_validate({**content, **({"added": OTHER[""]} if section == "" else {})})


@pytest.mark.parametrize("request_", [{}, {"seed": 3}, {"sets": ["lr=0.5"]}, {"hybrid": "last"}, {"unmatched": True}])
def test_an_option_added_later_keeps_every_earlier_hash(request_):
    earlier = config(**request_)
    assert later(earlier).canonical() != earlier.canonical()
    assert (later(earlier).identity, later(earlier).group) == (earlier.identity, earlier.group)
    assert later(earlier).recorded() == earlier.recorded()


@pytest.mark.parametrize("section", OTHER)
def test_another_value_of_an_option_added_later_changes_the_identity(section):
    earlier = config()
    assert later(earlier, section).identity != earlier.identity
    assert (later(earlier, section).group == earlier.group) == (section == "mixer_options")
    assert later(earlier, section).recorded() != earlier.recorded()


def test_an_option_of_the_first_version_counts_whatever_its_value():
    for section in ("data", "mixer_options", "model", "train"):
        later_ones = {"train": {"accumulate"}, "model": {"width_factor", "canon"}}.get(section, set())
        assert set(config().recorded()[section]) == set(config().canonical()[section]) - later_ones


@pytest.mark.parametrize("origin", ["task_origin", "mixer_origin"])
def test_a_third_partys_own_options_are_all_kept(origin):
    """Reading its record imports none of its code, so it is unknown which of its options are new."""
    section = "data" if origin == "task_origin" else "mixer_options"
    theirs = later(config(), **{origin: "their-package 1.0"})
    assert "added" in theirs.recorded()[section]
    assert "added" not in theirs.recorded()["model"]


def test_the_default_of_an_option_may_change_and_earlier_hashes_stay():
    class Changed(ModelConfig):
        added: bool = introduced(False, now=True)

    before = significant(ModelConfig().model_dump(), ModelConfig)
    assert Changed().added is True
    assert significant(Changed(added=False).model_dump(), Changed) == before
    assert significant(Changed().model_dump(), Changed) == {**before, "added": True}


def test_only_fields_that_declare_it_were_introduced_later():
    assert introduced_values(LaterData) == {"added": [1, 2]}
    assert introduced_values(TrainConfig) == {"accumulate": 1}
    assert introduced_values(ModelConfig) == {"width_factor": 1.0, "canon": "none"}
    for model in (RunConfig, TaskOptions, MixerConfig, FashionMnistOptions, KeyedFemConfig):
        assert introduced_values(model) == {}


# --- Rows and boards
# -------------------


@pytest.mark.parametrize("option", [{"canon": "A"}, {"canon": "AC"}, {"width_factor": 1.25}])
def test_a_convolution_or_a_wider_softmax_is_another_row_of_the_same_board(option):
    assert {f"model.{name}" for name in option} <= set(OF_A_ROW)
    usual = config()
    changed = usual.model_copy(update={"model": usual.model.model_copy(update=option)})
    assert changed.identity != usual.identity
    assert changed.group == usual.group


def test_without_leaves_the_config_as_it_is_and_ignores_unknown_names():
    values = {"seed": 1, "train": {"lr": 0.1, "steps": 3}}
    assert without(values, ("seed", "train.lr", "train.none", "none")) == {"train": {"steps": 3}}
    assert values == {"seed": 1, "train": {"lr": 0.1, "steps": 3}}


# --- Files
# ---------


def test_a_task_file_counts_by_its_name_and_content_not_by_its_folder(tmp_path):
    text = Path(NAMED.rpartition(":")[0]).read_text("utf-8")
    made = []
    for folder, content in (("a", text), ("b", text), ("c", text + "# changed\n")):
        path = tmp_path / folder / "sorting.py"
        path.parent.mkdir()
        path.write_text(content)
        made.append(resolve(task=f"{path}:Sorting", mixer="softmax", scale="board"))
    one, moved, changed = made
    assert (one.identity, one.group) == (moved.identity, moved.group)
    assert changed.identity != one.identity
    assert changed.group != one.group
    assert one.task_origin.startswith("sorting.py@")
    assert str(tmp_path) not in str(one.recorded())


def test_equal_values_have_equal_digests_whatever_their_order():
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
