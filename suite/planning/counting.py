"""What PyTorch's operations move and hold: the bytes that they read and write, their number, and the live memory."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

#: Results with fewer elements are always computed: kernels branch on such values.
SMALL = 2**14
_BY_VALUE = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)


class Counting(TorchDispatchMode):
    """Counts the operations within a `with` block. Views move nothing. An allocation counts as a write, for the kernel
    that fills it: compiled kernels are no operations of PyTorch.

    moved: bytes that operations read and write.
    operations: their number.
    live: bytes that were allocated within the block and are not freed yet.
    peak: the largest value of `live` since `peak` was last set.
    """

    def __init__(self, *, computed: bool = True) -> None:
        """Begins at zero.

        Args:
            computed: whether large results are computed. Otherwise they are zeros, in memory that is never touched: a
                model of billions of parameters is counted in seconds.
        """
        super().__init__()
        self.moved = self.operations = self.live = self.peak = 0
        self._computed = computed
        self._known = dict[int, weakref.ref[Any]]()
        self._zeros: weakref.ref[Any] | None = None

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        named, func = kwargs or {}, self._as_without_counting(func, args)
        result = None if self._computed or func.is_view else _zeros(func, args, named)
        if result is None:
            result = func(*args, **named)
        if not func.is_view:
            self.operations += 1
            self.moved += sum(x.numel() * x.element_size() for x in _tensors((args, named, result)))
            for x in _tensors(result):
                self._keep(x)
        if func is torch.ops.aten.new_zeros.default:
            self._zeros = weakref.ref(result.untyped_storage())
        return result

    def _as_without_counting(self, func: Any, args: Sequence[Any]) -> Any:
        """Where any dispatch mode is active, the backward pass of indexing copies the zeros that it otherwise fills in
        place.
        """
        if func is torch.ops.aten.index_put.default and self._filled(args[0]):
            return torch.ops.aten.index_put_.default
        return func

    def _filled(self, x: Tensor) -> bool:
        """Whether it has the storage of the last zeros that were made."""
        zeros = self._zeros() if self._zeros else None
        return zeros is not None and zeros._cdata == x.untyped_storage()._cdata

    def _keep(self, x: Tensor) -> None:
        """Adds a new storage to `live`, until it is freed."""
        storage = x.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = weakref.ref(storage, self._forgets(key, size))
        self.live += size
        self.peak = max(self.peak, self.live)

    def _forgets(self, key: int, size: int) -> Callable[[object], None]:
        def forget(_: object) -> None:
            del self._known[key]
            self.live -= size

        return forget


def _zeros(func: Any, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
    """The results of an operation in shape, with zeros for values; None where it has to be computed: small results,
    results whose shapes depend on values, and operations without an implementation of shapes alone.
    """
    if any(tag in func.tags for tag in _BY_VALUE):
        return None
    if func._schema.is_mutable:
        first = args[0] if args else None
        writes_first = isinstance(first, Tensor) and first.numel() >= SMALL and func._schema.arguments[0].is_write
        return first if writes_first and len(func._schema.returns) == 1 else None
    try:
        positional, keywords = tree_map(_on_meta, (tuple(args), dict(named)))
        if "device" in keywords:
            keywords["device"] = torch.device("meta")
        shapes = func(*positional, **keywords)
    except (NotImplementedError, RuntimeError):
        return None
    if not any(x.numel() >= SMALL for x in _tensors(shapes)):
        return None
    return tree_map(lambda x: _untouched(x) if isinstance(x, Tensor) else x, shapes)


def _on_meta(value: Any) -> Any:
    if isinstance(value, Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return value


def _untouched(like: Tensor) -> Tensor:
    """Zeros in the layout of a tensor on the meta device: NumPy asks the system for pages that are zero when read."""
    size = max(like.untyped_storage().nbytes(), like.element_size())
    flat = torch.from_numpy(np.zeros(size, np.uint8)).view(like.dtype)
    return flat.as_strided(like.shape, like.stride(), like.storage_offset())


def _tensors(values: Any) -> Iterator[Tensor]:
    return (x for x in tree_leaves(values) if isinstance(x, Tensor))
