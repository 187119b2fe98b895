"""imagenet100: a folder is checked before training, and val/ is the test split."""

from __future__ import annotations

import itertools
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from tasks.images.file_options import SizedImageOptions
from tasks.images.image_set import ImageFile, hold_out, read_rgb
from tasks.images.imagenet import ImageNet100, class_list
from tasks.images.loading import TrainingKeys, load_batches
from tasks.images.readers import SETTING
from tasks.images.transforms import training_transform
from tests.tasks.errors import error_of
from tests.tasks.images.image_reading import reader_of

SMALL = SizedImageOptions(image_size=32, patch=8)
FIRST = class_list()[0]


def take(iterator, n):
    return list(itertools.islice(iterator, n))


def first_image(folder):
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in (".jpeg", ".jpg"))[0]


def test_the_class_list_is_cmcs_hundred_different_ids():
    assert len(set(class_list())) == 100
    assert list(class_list()) == sorted(class_list())
    assert all(name.startswith("n") and len(name) == 9 and name[1:].isdigit() for name in class_list())
    info = ImageNet100().info()
    assert info.extra["class_list"] == "imagenet100_cmc"
    assert info.extra["class_list_sha256"] == "d61d354b64beb3ce2c2c9cf04a874298362dc9fcd589e15ee34c5e4592145746"


def test_spec_and_info_need_no_folder():
    task = ImageNet100(SizedImageOptions(image_size=96, patch=12))
    assert (task.spec.height, task.spec.width, task.spec.patch, task.spec.classes) == (96, 96, 12, 100)
    assert task.info().fingerprint == ""
    assert any("image-net.org" in note for note in task.info().notes)
    assert any("CMC's 100 classes (imagenet100.txt of its authors' code" in note for note in task.info().notes)
    assert not any("tasks/" in note for note in task.info().notes)


def test_the_error_without_a_folder_suggests_how_to_get_one_and_another_task():
    message = error_of(ImageNet100().load)
    for part in (
        "no folder given",
        "--data-dir DIR",
        "train/ and val/",
        "suite data info imagenet100",
        "--task fashion-mnist",
    ):
        assert part in message
    assert "hf auth login" in error_of(ImageNet100().prepare)  # uses the hub, where the data set is gated


def test_a_missing_folder_and_a_missing_part_are_named(tmp_path, own_image_folder):
    message = error_of(ImageNet100(SMALL, tmp_path / "nowhere").load)
    for part in (str(tmp_path / "nowhere"), "--data-dir DIR with train/ and val/"):
        assert part in message
    shutil.rmtree(own_image_folder / "val")
    message = error_of(ImageNet100(SMALL, own_image_folder).load)
    for part in (f"{own_image_folder} has no val/", "train/", "one folder per class"):
        assert part in message


def test_a_folder_without_images_is_named(tmp_path):
    for part in ("train", "val"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "notes.txt").write_text("hello")
    message = error_of(ImageNet100(SMALL, tmp_path).load)
    for part in (str(tmp_path / "train"), "no class folders", "100", FIRST):
        assert part in message
    for part in ("train", "val"):
        for name in class_list():
            (tmp_path / part / name).mkdir()
            (tmp_path / part / name / "table.csv").write_text("a,b")
    message = error_of(ImageNet100(SMALL, tmp_path).load)
    for part in (str(tmp_path / "train" / FIRST), "no image", ".jpeg"):
        assert part in message


def test_missing_and_unknown_classes_are_named(own_image_folder):
    for name in class_list()[3:8]:
        shutil.rmtree(own_image_folder / "train" / name)
    (own_image_folder / "train" / "n00000001").mkdir()
    message = error_of(ImageNet100(SMALL, own_image_folder).load)
    assert f"5 missing ({', '.join(class_list()[3:6])}, …)" in message
    assert "1 not in the list (n00000001)" in message


def test_if_only_val_differs_from_the_list_val_is_named(own_image_folder):
    shutil.rmtree(own_image_folder / "val" / FIRST)
    message = error_of(ImageNet100(SMALL, own_image_folder).load)
    assert str(own_image_folder / "val") in message
    assert f"1 missing ({FIRST})" in message


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
@pytest.mark.parametrize("workers", [0, 2])
def test_a_truncated_jpeg_is_named_also_from_worker_processes(own_image_folder, monkeypatch, workers):
    monkeypatch.setenv(SETTING, "off")
    victim = first_image(own_image_folder / "val" / class_list()[5])
    victim.write_bytes(victim.read_bytes()[:-200])
    message = error_of(lambda: list(ImageNet100(SMALL, own_image_folder).eval_batches("test", 16, workers)))
    assert message.startswith(f"{victim} ")
    assert "replace or remove it" in message


def test_prepare_decodes_all_images_reports_progress_and_names_damaged_ones(own_image_folder):
    steps = []
    ImageNet100(SMALL, own_image_folder).prepare(lambda done, total: steps.append((done, total)))
    assert steps == [(n, 500) for n in range(1, 501)]
    victims = [first_image(own_image_folder / part / FIRST) for part in ("train", "val")]
    victims[0].write_bytes(b"this is not an image")
    victims[1].write_bytes(victims[1].read_bytes()[:-200])
    message = error_of(ImageNet100(SMALL, own_image_folder).prepare)
    assert message.startswith("2 of 500 images ")
    assert all(str(victim) in message for victim in victims)


def test_val_is_the_test_split_and_validation_is_held_out_of_train(image_folder):
    task = ImageNet100(SMALL, image_folder)
    task.load()
    assert all(image.path.startswith("val/") for image in task.images["test"])
    assert all(image.path.startswith("train/") for split in ("train", "valid") for image in task.images[split])
    assert not {i.path for i in task.images["train"]} & {i.path for i in task.images["valid"]}
    assert {split: task.n_examples(split) for split in ("train", "valid", "test")} == {
        "train": 200,
        "valid": 100,
        "test": 200,
    }
    assert {i.label for i in task.images["valid"]} == {i.label for i in task.images["train"]} == set(range(100))
    assert all(class_list()[i.label] == i.path.split("/")[1] for part in task.images.values() for i in part)


def test_five_percent_per_class_is_held_out_in_any_order_but_never_a_single_image():
    images = [ImageFile(f"train/a/{i:04}.jpg", 0, 1) for i in range(1300)]
    images += [ImageFile("train/b/0.jpg", 1, 1), *(ImageFile(f"train/c/{i}.jpg", 2, 1) for i in range(2))]
    rest, out = hold_out(images, 0.05)
    held_out = [images[i] for i in out]
    assert [sum(i.label == label for i in held_out) for label in range(3)] == [65, 0, 1]
    assert sorted([*rest, *out]) == list(range(len(images)))
    assert {images[::-1][i] for i in hold_out(images[::-1], 0.05)[1]} == set(held_out)
    places = [int(i.path.split("/")[2][:-4]) for i in held_out if i.label == 0]
    assert 400 < sum(places) / len(places) < 900  # not the first or the last ones


def test_a_set_with_one_image_per_class_is_refused(own_image_folder):
    for name in class_list():
        for path in sorted((own_image_folder / "train" / name).iterdir())[1:]:
            path.unlink()
    message = error_of(ImageNet100(SMALL, own_image_folder).load)
    for part in ("nothing can be held out", str(own_image_folder / "train"), "add images"):
        assert part in message


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # more workers than this machine has cores
def test_batches_do_not_depend_on_the_number_of_workers(image_folder):
    task = ImageNet100(SMALL, image_folder)
    alone, helped = (take(task.train_batches(1, 8, start_step=2, workers=w), 3) for w in (0, 2))
    for a, b in zip(alone, helped, strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
    evaluated = [torch.cat([b.inputs for b in task.eval_batches("valid", 9, w)]) for w in (0, 2)]
    assert torch.equal(*evaluated)


def test_an_image_is_augmented_differently_in_each_epoch(image_folder):
    task = ImageNet100(
        SizedImageOptions(image_size=32, patch=8, augmentation="crop-flip", mixup=0, cutmix=0), image_folder
    )
    first, second = (torch.cat([b.inputs for b in take(task.train_batches(0, 100, start_step=s), 2)]) for s in (0, 2))
    keys = [torch.cat([b.targets for b in take(task.train_batches(0, 100, start_step=s), 2)]) for s in (0, 2)]
    assert torch.equal(keys[0].sort().values, keys[1].sort().values)  # an epoch each: the same images
    assert not torch.equal(first[keys[0].argsort(stable=True)], second[keys[1].argsort(stable=True)])


def test_training_without_augmentation_uses_the_images_of_evaluation(image_folder):
    options = SizedImageOptions(image_size=32, patch=8, augmentation="none", mixup=0, cutmix=0)
    task = ImageNet100(options, image_folder)
    trained = torch.cat([b.inputs for b in take(task.train_batches(0, 50), 4)])
    evaluated = torch.cat([b.inputs for b in task.eval_batches("train", 50)])
    assert torch.equal(trained.flatten(1).sum(1).sort().values, evaluated.flatten(1).sum(1).sort().values)


@pytest.mark.parametrize("augmentation", ["crop-flip", "randaugment"])
def test_the_strongest_augmentation_gives_finite_images(image_folder, augmentation):
    options = SizedImageOptions(image_size=32, patch=8, augmentation=augmentation, magnitude=10, erase=1.0)
    for batch in take(ImageNet100(options, image_folder).train_batches(0, 100), 2):
        assert torch.isfinite(batch.inputs).all()


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "P", "RGBA", "CMYK", "1", "I;16"])
def test_images_of_every_mode_become_rgb_of_the_right_brightness(tmp_path, mode):
    grey = Image.fromarray(np.full((5, 7), 192, dtype=np.uint8))
    if mode == "I;16":
        image = Image.fromarray(np.full((5, 7), 192 * 256 + 17, dtype=np.uint16))
    elif mode == "P":
        image = grey.convert("RGB").convert("P", palette=Image.Palette.ADAPTIVE)
    else:
        image = grey.convert("RGB").convert(mode, dither=Image.Dither.NONE)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    if mode == "P":
        image.save(path, transparency=b"\x80")
    else:
        image.save(path)
    pixels = np.asarray(read_rgb(path.read_bytes(), str(path))).astype(int)
    assert pixels.shape == (5, 7, 3)
    assert abs(pixels - (255 if mode == "1" else 192)).max() <= 3


@pytest.mark.parametrize(
    ("dtype", "value", "kind"),
    [
        ("int32", 40_000, "signed or 32-bit integers"),
        ("uint32", 40_000, "signed or 32-bit"),
        ("float32", 0.5, "floating-point numbers"),
    ],
)
def test_pixels_of_unknown_range_are_refused_and_not_clipped(tmp_path, dtype, value, kind):
    path = tmp_path / "scan.tif"
    Image.fromarray(np.full((4, 4), value, dtype=dtype)).save(path)
    message = error_of(lambda: read_rgb(path.read_bytes(), str(path)))
    for part in (str(path), kind, "save it as 8 or 16 bit"):
        assert part in message


def test_a_sixteen_bit_pgm_is_scaled_to_eight_bits():
    shades = np.array([0, 1_000, 40_000, 65_535], dtype=">u2")
    image = read_rgb(b"P5 4 1 65535\n" + shades.tobytes(), "a.pgm")
    assert np.asarray(image)[0, :, 0].tolist() == [0, 3, 156, 255]


def test_the_fingerprint_depends_on_names_and_sizes_and_not_on_the_folder(image_folder, own_image_folder):
    before = ImageNet100(SMALL, own_image_folder).fingerprint
    assert ImageNet100(SMALL, image_folder).fingerprint == before
    victim = first_image(own_image_folder / "val" / FIRST)
    victim.rename(victim.with_name("renamed.JPEG"))
    renamed = ImageNet100(SMALL, own_image_folder).fingerprint
    with victim.with_name("renamed.JPEG").open("ab") as stream:
        stream.write(b"\0")
    assert len({before, renamed, ImageNet100(SMALL, own_image_folder).fingerprint}) == 3


def test_a_patch_that_does_not_divide_the_image_is_refused():
    with pytest.raises(ValidationError, match=r"patch 15 .* 224 pixels; choose a divisor"):
        SizedImageOptions(patch=15)


def test_the_strongest_posterize_keeps_one_bit():
    transform = training_transform(ImageNet100().preprocessing, "randaugment", 10, 0.25)
    ops = [op for step in transform.transforms for op in getattr(step, "ops", ()) if op.name == "PosterizeIncreasing"]
    image = Image.fromarray(np.array([[0, 127, 128, 255]], dtype=np.uint8))
    assert [np.asarray(op.aug_fn(image, 0)).tolist() for op in ops] == [[[0, 0, 128, 128]]]


def test_each_sample_is_keyed_by_seed_step_and_position_in_the_batch():
    for step, keys in enumerate(take(TrainingKeys(np.arange(100, 110), 4, seed=3, start_step=7), 3), 7):
        assert [key[1:] for key in keys] == [(3, step, position) for position in range(4)]
        assert all(100 <= key[0] < 110 for key in keys)


@pytest.mark.parametrize("other", [(0, 2, 5, 6), (0, 1, 6, 6), (0, 1, 5, 7)])
def test_the_augmentation_of_a_sample_changes_with_each_part_of_its_key(image_folder, other):
    task = ImageNet100(SMALL, image_folder)
    reader = reader_of(task)
    keys = [[(0, 1, 5, 6)], [other], [(0, 1, 5, 6)]]
    transform = training_transform(task.preprocessing, "randaugment", 9, 0.25)
    first, changed, again = load_batches(reader, task.set.listing.labels, transform, keys, workers=0)
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, changed.inputs)
