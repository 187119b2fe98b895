"""The image backbone: any image and patch size, patches in rows, the average of its tokens."""

from __future__ import annotations

import pytest
import torch

from backbones.vit import patch_grid
from tests.backbones.small_models import DIM, vit


@pytest.fixture(autouse=True)
def _seeded():
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("height", "width", "patch"), [(28, 28, 4), (28, 28, 5), (7, 13, 4), (13, 7, 4), (3, 3, 8), (1, 9, 2), (5, 5, 1)]
)
def test_a_vit_accepts_any_image_and_patch_size(height, width, patch):
    model = vit(height, width, patch)
    assert model(torch.randn(2, 2, height, width, dtype=torch.float64)).shape == (2, 5)
    assert model.trunk.positions.shape[0] == -(-height // patch) * -(-width // patch)


@pytest.mark.parametrize(("height", "width", "patch"), [(7, 13, 4), (3, 3, 8)])
def test_images_are_padded_at_bottom_and_right_to_a_multiple_of_the_patch(height, width, patch):
    model = vit(height, width, patch)
    rows, columns = patch_grid(height, width, patch)
    whole = vit(rows * patch, columns * patch, patch)
    whole.load_state_dict(model.state_dict())
    image = torch.randn(2, 2, height, width, dtype=torch.float64)
    padded = torch.zeros(2, 2, rows * patch, columns * patch, dtype=torch.float64)
    padded[:, :, :height, :width] = image
    assert torch.allclose(model(image), whole(padded), rtol=0, atol=1e-12)


def test_a_vit_reads_patches_row_by_row_and_averages_the_tokens():
    model = vit(6, 9, 3, "no-mixing")
    image = torch.randn(1, 2, 6, 9, dtype=torch.float64)
    weight, bias = model.embedding.weight, model.embedding.bias
    assert bias is not None
    tokens = []
    for row in range(2):
        for column in range(3):
            patch = image[0, :, 3 * row : 3 * row + 3, 3 * column : 3 * column + 3]
            tokens.append((weight * patch).sum((1, 2, 3)) + bias)
    hidden = model.trunk(torch.stack(tokens)[None])
    expected = hidden.mean(1) @ model.head.weight.T + model.head.bias
    assert torch.allclose(model(image), expected, rtol=0, atol=1e-12)


def test_a_vit_is_not_causal():
    """Not causal: the first patch's state depends on the last patch."""
    model = vit(9, 12, 3, "softmax")
    x = torch.randn(1, 12, DIM, dtype=torch.float64)
    changed = x.clone()
    changed[:, -1] += 1
    assert not torch.allclose(model.trunk(x)[:, 0], model.trunk(changed)[:, 0], rtol=0, atol=1e-9)
