"""Options of the image tasks over files; the defaults of the augmentation follow DeiT (arXiv 2012.12877)."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tasks.images.classification import CUTMIX_HELP, ImageOptions


class FileImageOptions(ImageOptions):
    """Options of image tasks over files. All of them are part of a run's identity."""

    patch: int = Field(default=16, ge=1, le=256, description="side of a patch in pixels; divides the image's side")
    augmentation: Literal["none", "crop-flip", "randaugment"] = Field(
        default="randaugment",
        description="none: as in evaluation; crop-flip: random crop and flip; randaugment: these and RandAugment",
    )
    magnitude: int = Field(default=9, ge=0, le=10, description="strength of RandAugment")
    erase: float = Field(
        default=0.25, ge=0.0, le=1.0, description="probability of random erasing (not with augmentation none)"
    )
    label_smoothing: float = Field(
        default=0.1, ge=0.0, lt=1.0, description="weight of the uniform target in the training loss"
    )
    mixup: float = Field(default=0.8, ge=0.0, le=10.0, description="α of Mixup's Beta(α, α); 0: off")
    cutmix: float = Field(default=1.0, ge=0.0, le=10.0, description=CUTMIX_HELP)
    valid_limit: int = Field(
        default=0, ge=0, description="validation images scored, evenly spread over the classes; 0: all"
    )
    test_limit: int = Field(default=0, ge=0, description="test images scored, evenly spread over the classes; 0: all")

    @property
    def side(self) -> int:
        """Side of the square images that the model reads, in pixels."""
        raise NotImplementedError

    @property
    def cached_side(self) -> int:
        """Shorter side to which larger images are reduced before anything else, in pixels; 0: off."""
        return 0

    @model_validator(mode="after")
    def _patch_divides(self) -> Self:
        if self.side % self.patch:
            raise ValueError(
                f"patch {self.patch} does not divide the image's side of {self.side} pixels; choose a divisor of it"
            )
        return self


class SizedImageOptions(FileImageOptions):
    """Options of tasks whose images have different sizes."""

    image_size: int = Field(
        default=224, ge=16, le=1024, description="side of the square to which images are brought, in pixels"
    )
    stored_side: int = Field(
        default=0,
        ge=0,
        le=2048,
        description="shorter side to which larger images are reduced first (once, if they are cached); 0: off",
    )

    @property
    def side(self) -> int:
        return self.image_size

    @property
    def cached_side(self) -> int:
        return self.stored_side
