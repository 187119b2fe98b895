"""The nonlinear query and its controls: sizes, initial values and what each isolates; the bound of QK-norm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from backbones.mixers import registry
from backbones.mixers.attention.queries import IdentityQuery, LinearResidualQuery, NonlinearQuery, QKNorm
from backbones.mixers.base import Context, Mixer, MixerConfig
from backbones.mixers.errors import MixerError

D = 32


def build(cls: type[Mixer]) -> Mixer:
    torch.manual_seed(0)
    return cls(MixerConfig(), D, 16).double()


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("dim", [64, 128, 768])
def test_the_query_costs_d_squared_and_two_gains_and_the_identity_nothing(dim: int) -> None:
    count = {
        cls: cls.cost(MixerConfig(), dim, 64).parameters
        for cls in (NonlinearQuery, LinearResidualQuery, IdentityQuery, QKNorm)
    }
    assert count[NonlinearQuery] == count[LinearResidualQuery] == 4 * dim**2 + 2 * dim
    assert count[IdentityQuery] == 3 * dim**2
    assert count[QKNorm] == 4 * dim**2 + 2 * (dim // 4)


def test_only_the_identity_pays_in_the_ffn() -> None:
    assert [n for n in registry.names() if registry.get(n).capabilities.pays_in_ffn] == ["identity-query"]


def test_the_initial_query_matrices_are_small_and_the_gains_one() -> None:
    torch.manual_seed(0)
    mixer = NonlinearQuery(MixerConfig(), 256, 16)
    for weight in (mixer.query_in, mixer.query_out):
        assert float(weight.detach().std()) == pytest.approx(0.02, rel=0.02)
        assert abs(float(weight.detach().mean())) < 1e-3
    assert bool((mixer.gain_in == 1).all())
    assert bool((mixer.gain_out == 1).all())


def test_without_its_branch_the_nonlinear_query_is_the_identity_query() -> None:
    ours, control, x = build(NonlinearQuery), build(IdentityQuery), draw(2, 9, D)
    control.load_state_dict(ours.state_dict(), strict=False)
    with torch.no_grad():
        ours.get_parameter("gain_out").zero_()
    torch.testing.assert_close(ours(x), control(x))


def test_the_linear_control_differs_by_the_gelu_only() -> None:
    ours, control, x = build(NonlinearQuery), build(LinearResidualQuery), draw(2, 9, D)
    control.load_state_dict(ours.state_dict())
    assert (ours(x) - control(x)).abs().max() > 1e-4
    ours.activation = control.activation
    torch.testing.assert_close(ours(x), control(x))


def test_normalised_scores_ignore_the_scale_of_the_input_and_values_do_not() -> None:
    mixer, x = build(QKNorm), draw(2, 9, D)
    large = mixer(100 * x)
    assert (build(registry.get("softmax"))(1e4 * x) - 100 * build(registry.get("softmax"))(100 * x)).abs().max() > 1.0
    torch.testing.assert_close(
        mixer(1e4 * x), 100 * large, rtol=1e-5, atol=1e-4
    )  # up to eps, about 1e-9 of the first scale


def test_normalised_scores_are_bounded_by_the_gains() -> None:
    mixer, x = build(QKNorm), 1e4 * draw(2, 9, D)
    q, k, _ = mixer.rotated(x, Context())  # type: ignore[operator]
    assert float(torch.einsum("bthd,bihd->bhti", q, k).detach().abs().max()) <= 8 + 1e-6


def test_a_width_that_does_not_split_into_even_heads_is_refused() -> None:
    with pytest.raises(MixerError, match=r"heads=4 .* 36 .*choose one of"):
        NonlinearQuery.size(MixerConfig(), 36, 16, 4 * 36**2)
