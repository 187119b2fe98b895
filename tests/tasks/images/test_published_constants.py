"""Published constants of image preprocessing as numbers, and pictures whose normalised values are written by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tasks.images.cifar import Cifar10, Cifar100
from tasks.images.imagenet import ImageNet1k, ImageNet100
from tasks.images.own_images import OwnImages
from tasks.images.transforms import Preprocessing, evaluation_transform, training_transform

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


@pytest.mark.parametrize(
    ("task", "constants"),
    [(ImageNet1k, IMAGENET), (ImageNet100, IMAGENET), (OwnImages, IMAGENET), (Cifar10, CIFAR), (Cifar100, CIFAR)],
)
def test_images_are_normalised_with_the_published_mean_and_deviation(task, constants):
    assert (task().preprocessing.mean, task().preprocessing.std) == constants


def test_a_picture_has_the_normalised_values_that_are_computed_by_hand():
    """Four pixels: black, white, pure blue, and ImageNet's mean colour in eight bits."""
    pixels = np.array([[[0, 0, 0], [255, 255, 255]], [[0, 0, 255], [124, 116, 104]]], dtype=np.uint8)
    large = Image.fromarray(pixels).resize((32, 32), Image.Resampling.NEAREST)
    found = evaluation_transform(Preprocessing(32, padding=4))(large)  # as small images are: neither resized nor cut
    expected = {  # (row, column): red, green, blue
        (0, 0): (-2.117904, -2.035714, -1.804444),
        (0, 31): (2.248908, 2.428571, 2.640000),
        (31, 0): (-2.117904, -2.035714, 2.640000),
        (31, 31): (0.005566, -0.004902, 0.008192),
    }
    for (row, column), values in expected.items():
        torch.testing.assert_close(found[:, row, column], torch.tensor(values), atol=2e-6, rtol=0)


@pytest.mark.parametrize("augmentation", ["none", "crop-flip"])
def test_training_and_evaluation_normalise_large_pictures_with_the_same_numbers(augmentation):
    picture = Image.new("RGB", (90, 70), (200, 10, 60))
    expected = torch.tensor([1.307047, -1.860644, -0.758693])[:, None, None].expand(3, 48, 48)
    for transform in (
        evaluation_transform(Preprocessing(48)),
        training_transform(Preprocessing(48), augmentation, 9, erase=0.0),
    ):
        torch.testing.assert_close(transform(picture), expected, atol=2e-6, rtol=0)


def test_the_evaluated_picture_is_the_centre_at_seven_eighths_of_the_shorter_side():
    """Of 80 × 64 pixels, the 56 × 56 in the middle: a line through the centre stays there."""
    picture = Image.new("RGB", (80, 64))
    picture.paste((255, 255, 255), (38, 0, 42, 64))
    whole = evaluation_transform(Preprocessing(56))(picture)
    assert whole.shape == (3, 56, 56)
    brightness = whole[0].mean(0)
    assert torch.nonzero(brightness > 2).flatten().tolist() == [26, 27, 28, 29]
    assert torch.nonzero(brightness < -2).numel() == 52
