"""timm's transforms, from a PIL image to a normalised tensor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from PIL import Image, ImageOps

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """The size and normalisation of the model's images.

    With `padding`, small images keep their size, and training crops them from the image padded by it. Without it,
    training uses random resized crops, and evaluation the centre of the image at 1/0.875 of the side.
    """

    side: int
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    padding: int = 0


def evaluation_transform(spec: Preprocessing) -> Any:
    from timm.data import create_transform

    crop = 1.0 if spec.padding else 0.875
    return create_transform(
        spec.side,
        is_training=False,
        interpolation="bicubic",
        crop_pct=crop,
        mean=spec.mean,
        std=spec.std,
    )


def training_transform(spec: Preprocessing, augmentation: str, magnitude: int, erase: float) -> Any:
    """`augmentation`: "none", "crop-flip", or "randaugment" (also RandAugment as in DeiT, arXiv 2012.12877)."""
    from timm.data import create_transform
    from torchvision import transforms

    if augmentation == "none":
        return evaluation_transform(spec)
    transform = create_transform(
        spec.side,
        is_training=True,
        interpolation="bicubic",
        auto_augment=f"rand-m{magnitude}-mstd0.5-inc1" if augmentation == "randaugment" else None,
        color_jitter=None,
        re_prob=erase,
        re_mode="pixel",
        mean=spec.mean,
        std=spec.std,
    )
    if spec.padding:
        crop = [
            transforms.Resize(spec.side),
            transforms.RandomCrop(spec.side, padding=spec.padding),
        ]
        transform.transforms[:1] = crop  # instead of the random resized crop
    for op in (op for step in transform.transforms for op in getattr(step, "ops", ())):
        if op.name == "PosterizeIncreasing":
            op.aug_fn = _posterize
    return transform


def _posterize(image: Image.Image, bits: int, **_: Any) -> Image.Image:
    """At the greatest strength timm requests 0 bits, a black image, which Pillow 13 refuses; here it is one bit."""
    return ImageOps.posterize(image, max(1, bits))
