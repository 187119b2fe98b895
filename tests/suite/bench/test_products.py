"""The products of the bench are those of a linear layer and its gradients."""

from __future__ import annotations

import pytest
import torch

from suite.bench import products
from suite.models.resolve import resolve_run


@pytest.mark.parametrize("shape", [(5, 7, 3), (64, 32, 48)])
def test_the_compiled_products_equal_pytorchs(shape):
    found = products.products(*shape)
    if products.PYTORCH not in found:
        pytest.skip("no compiled library")
    torch.testing.assert_close(found["ours"](), found[products.PYTORCH](), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(
    ("task", "name"), [("sotu", "text"), ("fashion-mnist", "images"), ("household-power", "series")]
)
def test_the_shapes_are_those_of_the_recipes(task, name):
    model = resolve_run(task=task, mixer="softmax", scale="quick").config.model
    D, width = model.dim, model.ffn_width
    assert products.SHAPES[name][1] == ((D, 3 * D), (D, D), (D, 2 * width), (width, D))
