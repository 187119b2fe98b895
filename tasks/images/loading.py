"""Batches of images that loader processes read, transform and mix."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tasks.base import Batch, DataError
from tasks.images.readers import Reader
from tasks.randomness import SAMPLE, restored_generators, seed_all, shuffled_batches

#: The signals at which a run stops, `suite.training.signals`.
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU)
Key = tuple[int, int, int, int]  # index of the image, seed, step, position in the batch
Transform = Callable[[Image.Image], Tensor]
Mix = Callable[[Batch, int, int], Batch]  # (batch, seed, step) → batch


class TrainingKeys:
    """The keys of each training batch over the images at `index`, endlessly from `start_step` on.

    `places`: the positions of each batch that are given; None: all.
    """

    def __init__(
        self, index: NDArray[Any], batch_size: int, seed: int, start_step: int, places: NDArray[Any] | None = None
    ) -> None:
        self.index, self.batch_size, self.seed, self.start_step = index, batch_size, seed, start_step
        self.places = (np.arange(batch_size) if places is None else places).tolist()

    def __iter__(self) -> Iterator[list[Key]]:
        batches = shuffled_batches(len(self.index), self.batch_size, self.seed, self.start_step)
        for step, chosen in enumerate(batches, self.start_step):
            yield [(int(self.index[chosen[place]]), self.seed, step, place) for place in self.places]


def evaluation_keys(index: NDArray[Any], batch_size: int) -> list[list[Key]]:
    """The keys of each evaluation batch: every image once, in order."""
    keys: list[Key] = [(int(i), 0, 0, position) for position, i in enumerate(index)]
    return [keys[at : at + batch_size] for at in range(0, len(keys), batch_size)]


class _Samples(Dataset[Any]):
    """Batches of decoded, transformed and mixed images, assembled in the worker."""

    def __init__(self, reader: Reader, labels: NDArray[Any], transform: Transform, mix: Mix | None) -> None:
        self.reader, self.labels, self.transform, self.mix = reader, labels, transform, mix

    def __getitems__(self, keys: list[Key]) -> tuple[Tensor, Tensor] | str:
        """The batch of these keys, or the error about one of its images: an exception would arrive as a worker's
        traceback.
        """
        try:
            with restored_generators():
                images = [self._sample(key) for key in keys]
        except DataError as error:
            return str(error)
        batch = Batch(torch.stack(images), torch.from_numpy(self.labels[[key[0] for key in keys]]))
        if self.mix is not None:
            batch = self.mix(batch, keys[0][1], keys[0][2])
        return batch.inputs, batch.targets

    def _sample(self, key: Key) -> Tensor:
        index, *place = key
        image = self.reader.read(index)
        seed_all(SAMPLE, *place)
        return self.transform(image)


def _unchanged(batch: Any) -> Any:
    return batch


def _leave_signals_to_the_run(worker: int) -> None:
    """A terminal and a scheduler signal every process of a job. The one that trains decides when it has read enough,
    and ends its loaders; one that died of the signal would cost the steps since the last checkpoint.
    """
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


def load_batches(
    reader: Reader,
    labels: NDArray[Any],
    transform: Transform,
    keys: Iterable[list[Key]],
    workers: int,
    mix: Mix | None = None,
) -> Iterator[Batch]:
    """One batch for every list of keys, in order; `mix(batch, seed, step)` may mix its images.

    Each sample is seeded by its own key and each mixture by the first key of the batch, so the batches do not depend on
    the number of workers.
    """
    loader = DataLoader(
        _Samples(reader, labels, transform, mix),
        batch_sampler=keys,
        num_workers=workers,
        collate_fn=_unchanged,
        worker_init_fn=_leave_signals_to_the_run,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # otherwise the loader draws from the global one
    )
    for loaded in loader:
        if isinstance(loaded, str):
            raise DataError(loaded)
        yield Batch(*loaded)
