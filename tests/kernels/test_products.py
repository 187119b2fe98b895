"""The matrix products of the compiled kernels: each is the fp64 product, and the fastest sound one is chosen."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from kernels.cpu import library as built
from kernels.cpu.build import UnavailableError
from kernels.cpu.products import blas, comparison

NAMES = tuple(blas.TITLES)


@pytest.fixture
def library() -> Iterator[ctypes.CDLL]:
    """The compiled kernels; their products are restored afterwards."""
    found, before = built.library(), built.products()
    if found is None or before is None:
        pytest.skip("no compiled kernels here")
    yield found
    built.use(found, before)


def use(library: ctypes.CDLL, name: str) -> None:
    if name not in blas.candidates():
        pytest.skip(f"{name} is not available here")
    built.use(library, blas.candidates()[name]())


def multiply(
    library: ctypes.CDLL, a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, turned: int, keep: float
) -> None:
    """out = 2 a b + keep out; bits of `turned`: a is stored as its transpose, b too, b is packed first."""
    (m, n), k = out.shape, a.shape[1]
    a, b = (a.T if turned & 1 else a).contiguous(), (b.T if turned & 2 else b).contiguous()
    pitches = (a.shape[1], turned & 1, b.shape[1], turned >> 1 & 1, out.stride(0), turned >> 2)
    getattr(library, "product_float" if a.dtype == torch.float32 else "product_double")(
        *(ctypes.c_void_p(x.data_ptr()) for x in (a, b, out)),
        *map(ctypes.c_double, (2.0, keep)),
        *map(ctypes.c_long, (m, n, k, *pitches)),
    )


def loop(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a b in fp64, one term after the other."""
    total = torch.zeros(a.shape[0], b.shape[1], dtype=torch.float64)
    for i in range(a.shape[1]):
        total += a[:, i : i + 1].double() * b[i : i + 1].double()
    return total


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 15, 3), (8, 48, 16), (9, 65, 17), (63, 130, 400), (70, 5, 800)])
def test_a_product_is_the_sum_in_fp64_in_every_layout(
    library: ctypes.CDLL, name: str, dtype: torch.dtype, shape: tuple[int, int, int]
) -> None:
    use(library, name)
    m, n, k = shape
    torch.manual_seed(0)
    a, b, start = (torch.randn(*size, dtype=dtype) for size in ((m, k), (k, n), (m, n + 3)))
    for turned in range(8):
        for keep in (0.0, 1.0, -0.5):
            memory = start.clone()
            out = memory[:, :n]
            if keep == 0:
                out.fill_(float("nan"))
            wanted = 2 * loop(a, b) + (keep * start[:, :n].double() if keep else 0)
            multiply(library, a, b, out, turned, keep)
            error = float((out.double() - wanted).abs().max() / wanted.abs().max())
            assert error <= comparison.TOLERANCE[dtype], (turned, keep)
            assert torch.equal(memory[:, n:], start[:, n:])


def test_an_entry_of_the_suites_product_does_not_depend_on_the_other_rows(library: ctypes.CDLL) -> None:
    use(library, "suite")
    torch.manual_seed(0)
    a, b = torch.randn(21, 500), torch.randn(500, 70)
    whole, part = torch.zeros(21, 70), torch.zeros(5, 70)
    multiply(library, a, b, whole, 0, 0.0)
    multiply(library, a[16:], b, part, 4, 0.0)
    assert torch.equal(whole[16:], part)


@pytest.mark.parametrize("name", NAMES)
def test_the_comparison_with_pytorch_accepts_every_available_product(library: ctypes.CDLL, name: str) -> None:
    use(library, name)
    assert comparison.difference(library) <= 1


def timed(monkeypatch: pytest.MonkeyPatch, **seconds: float) -> None:
    monkeypatch.setattr(comparison, "candidates", lambda: {name: partial(blas.Products, name) for name in seconds})
    monkeypatch.setattr(comparison, "_timed", lambda _, sound: {name: seconds[name] for name in sound})


def test_the_fastest_product_is_chosen_if_it_is_faster_by_the_margin(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, mkl=1.0, openblas=0.99, suite=0.8)
    assert comparison.fastest(library)["chosen"] == "suite"
    timed(monkeypatch, mkl=1.0, openblas=0.99, suite=0.98)
    assert comparison.fastest(library)["chosen"] == "mkl"


def test_a_product_that_differs_from_pytorchs_is_never_chosen(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timed(monkeypatch, mkl=0.1, suite=1.0)
    errors = iter([7.0, 0.5])
    monkeypatch.setattr(comparison, "difference", lambda _: next(errors))
    assert comparison.fastest(library)["chosen"] == "suite"
    assert "MKL are off by 7" in caplog.text
    monkeypatch.setattr(comparison, "difference", lambda _: float("nan"))
    with pytest.raises(OSError, match="no matrix product"):
        comparison.fastest(library)


def test_a_product_that_cannot_be_loaded_is_left_out_with_a_warning(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    timed(monkeypatch, openblas=0.1, suite=1.0)

    def missing() -> blas.Products:
        raise OSError("no such file")

    made = {"openblas": missing, "suite": partial(blas.Products, "suite")}
    monkeypatch.setattr(comparison, "candidates", lambda: made)
    monkeypatch.setattr(comparison, "difference", lambda _: 0.0)
    assert comparison.fastest(library)["chosen"] == "suite"
    assert "OpenBLAS can't be loaded: no such file" in caplog.text


def test_another_library_is_not_loaded_where_one_was_chosen(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """OpenBLAS would start threads, and its number of threads is that of SciPy too."""
    monkeypatch.setattr(blas, "_openblas", lambda: pytest.fail("loaded"))
    monkeypatch.setattr(comparison, "fastest", lambda *_: {"chosen": "suite", "seconds": {}})
    monkeypatch.delenv(built.VARIABLE, raising=False)
    for _ in range(2):
        assert built.chosen(library, tmp_path / "kernels.so").name == "suite"


def test_the_choice_is_stored_and_found_again(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(built.VARIABLE, raising=False)
    monkeypatch.setattr(comparison, "fastest", lambda *_: {"chosen": "suite", "seconds": {}})
    assert built.chosen(library, tmp_path / "kernels.so").name == "suite"
    monkeypatch.setattr(comparison, "fastest", lambda *_: pytest.fail("compared again"))
    assert built.chosen(library, tmp_path / "kernels.so").name == "suite"
    [file] = tmp_path.glob("*.json")
    assert json.loads(file.read_text("utf-8"))["chosen"] == "suite"


def test_another_way_of_comparing_compares_again(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv(built.VARIABLE, raising=False)
    monkeypatch.setattr(comparison, "fastest", lambda *_: {"chosen": "suite", "seconds": {}})
    assert built.chosen(library, tmp_path / "kernels.so").name == "suite"
    (tmp_path / "comparison.py").write_text("# other layers", "utf-8")
    monkeypatch.setattr(comparison, "__file__", str(tmp_path / "comparison.py"))
    monkeypatch.setattr(comparison, "fastest", lambda *_: {"chosen": "mkl", "seconds": {}})
    assert built.chosen(library, tmp_path / "kernels.so").name == "mkl"


def test_a_named_product_is_used_without_a_comparison(
    library: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(comparison, "fastest", lambda *_: pytest.fail("compared"))
    monkeypatch.setenv(built.VARIABLE, "suite")
    assert built.chosen(library, tmp_path / "kernels.so").name == "suite"
    monkeypatch.setenv(built.VARIABLE, "blis")
    with pytest.raises(UnavailableError, match=r"SUITE_PRODUCTS=blis .* \(allowed: .*suite\)"):
        built.chosen(library, tmp_path / "kernels.so")


@pytest.mark.parametrize("name", NAMES)
def test_records_report_whose_products_ran(library: ctypes.CDLL, name: str) -> None:
    from backbones.implementations import implementations

    use(library, name)
    assert implementations(torch.device("cpu")) == {"cpu": f"c++, products by {blas.TITLES[name]}"}
