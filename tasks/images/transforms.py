"""timm's transforms, from a PIL image to a normalised tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Recipe:
    """How images are brought to the model. `padding`: small images keep their size and are cropped out of themselves
    padded by it; else
    training takes random resized crops and evaluation the middle of the image at 1/0.875 of the side."""

    side: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    padding: int = 0


def evaluation_transform(recipe: Recipe) -> Any:
    from timm.data import create_transform

    share = 1.0 if recipe.padding else 0.875
    return create_transform(
        recipe.side, is_training=False, interpolation="bicubic", crop_pct=share, mean=recipe.mean, std=recipe.std
    )


def training_transform(recipe: Recipe, augmentation: str, magnitude: int, erase: float) -> Any:
    """`augmentation`: "none", "crop-flip" or "randaugment" (crop, flip and RandAugment as DeiT has it, arXiv
    2012.12877).
    """
    from timm.data import create_transform
    from torchvision import transforms

    if augmentation == "none":
        return evaluation_transform(recipe)
    made = create_transform(
        recipe.side,
        is_training=True,
        interpolation="bicubic",
        auto_augment=f"rand-m{magnitude}-mstd0.5-inc1" if augmentation == "randaugment" else None,
        color_jitter=None,
        re_prob=erase,
        re_mode="pixel",
        mean=recipe.mean,
        std=recipe.std,
    )
    if recipe.padding:
        crop = [transforms.Resize(recipe.side), transforms.RandomCrop(recipe.side, padding=recipe.padding)]
        made.transforms[:1] = crop  # in the place of the random resized crop
    for op in (op for step in made.transforms for op in getattr(step, "ops", ())):
        if op.name == "PosterizeIncreasing":
            op.aug_fn = _posterize
    return made


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """timm asks for 0 bits at the greatest strength, a black image, which Pillow 13 refuses; here one bit is kept."""
    return ImageOps.posterize(image, max(1, bits))
