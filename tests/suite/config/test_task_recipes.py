"""Recipes of third-party tasks: TOML in the class or in a file next to it."""

from __future__ import annotations

import pytest

from suite.config.recipe import scales_of, shipped_recipe
from suite.errors import UserError
from suite.models.resolve import resolve
from tests.tasks.third_party import EXAMPLE, NAMED, write_file

START, END = '    recipes = """\n', '    """\n'


def with_recipes(folder, recipes: str) -> str:
    """The name of the example task with these recipes instead of its own."""
    before, _, after = EXAMPLE.read_text("utf-8").partition(START)
    text = f"{before}    recipes = {recipes}\n{after.partition(END)[2]}"
    return f"{write_file(folder, text)}:Sorting"


def test_the_recipe_of_a_third_party_task_is_used_at_its_scales():
    assert scales_of(NAMED) == ("board", "quick")
    config = resolve(task=NAMED, mixer="softmax", scale="board")
    assert (config.train.steps, config.train.batch_size, config.model.dim) == (200, 64, 64)
    assert resolve(task=NAMED, mixer="softmax", scale="quick").train.steps == 1000


def test_a_scale_without_a_recipe_is_refused_with_those_that_have_one():
    with pytest.raises(UserError, match="no recipe at scale 'paper'; it has board, quick"):
        resolve(task=NAMED, mixer="softmax", scale="paper")
    with pytest.raises(UserError, match="did you mean 'paper'"):
        resolve(task=NAMED, mixer="softmax", scale="papr")


def test_a_recipe_may_be_a_file_next_to_the_task(tmp_path):
    (tmp_path / "mine.toml").write_text("[board.train]\nsteps = 7\n")
    named = with_recipes(tmp_path, '__import__("pathlib").Path(__file__).with_name("mine.toml")')
    assert shipped_recipe(named, "board")["train"] == {"steps": 7}


@pytest.mark.parametrize(
    ("recipes", "said"),
    [
        ('""', "has no recipe"),
        ('"[board"', "cannot be read"),
        ('__import__("pathlib").Path("no-such.toml")', "cannot be read"),
        ('"[baord.train]"', "unknown part 'baord'; did you mean 'board'"),
        ('"steps = 3"', "unknown part 'steps'"),
        ('"[board.trian]"', "unknown section board.trian; did you mean 'train'"),
        ('"[board.train]\\nstps = 3"', "'train.stps'; did you mean 'steps'"),
    ],
)
def test_an_unusable_recipe_is_refused_in_one_line(tmp_path, recipes, said):
    named = with_recipes(tmp_path, recipes)
    with pytest.raises(UserError) as refused:
        resolve(task=named, mixer="softmax", scale="board")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)
