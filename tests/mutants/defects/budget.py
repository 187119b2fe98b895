"""Budgets, certificates and hybrids."""

from __future__ import annotations

from tests.mutants.defect import Defect

BUDGET: tuple[Defect, ...] = (
    Defect(
        "budget",
        "suite/models/budget.py",
        "TOTAL_TOLERANCE = 0.01",
        "TOTAL_TOLERANCE = 0.011",
        "1.1 % counts as matched",
        ("tests/suite/models/test_budget_limits.py::test_certificates_just_inside_and_outside_the_limits",),
    ),
    Defect(
        "budget",
        "suite/models/budget.py",
        "LAYER_TOLERANCE = 0.05",
        "LAYER_TOLERANCE = 0.055",
        "5.5 % counts as matched",
        ("tests/suite/models/test_budget_limits.py::test_certificates_just_inside_and_outside_the_limits",),
    ),
    Defect(
        "budget",
        "suite/models/budget.py",
        "FFN_TOLERANCE = 0.05",
        "FFN_TOLERANCE = 0.06",
        "the feed-forward width moves further than is documented",
        ("tests/suite/models/test_budget_limits.py::test_the_feed_forward_width_moves_by_at_most_5_percent",),
    ),
    Defect(
        "budget",
        "suite/models/budget.py",
        "round(left_over / (3 * model.dim))",
        "round(left_over / (2 * model.dim))",
        "a SwiGLU has three matrices, not two",
        ("tests/suite/models/test_budget_limits.py::test_the_feed_forward_width_moves_by_at_most_5_percent",),
    ),
    Defect(
        "budget",
        "suite/models/budget.py",
        "if abs(mixer_ratio - 1) > LAYER_TOLERANCE",
        "if mixer_ratio - 1 > LAYER_TOLERANCE",
        "a mixer that is too small is matched",
        ("tests/suite/models/test_budget_limits.py::test_certificates_just_inside_and_outside_the_limits",),
    ),
    Defect(
        "budget",
        "suite/models/budget.py",
        "if i + 1 not in config.hybrid), 0)",
        "if i not in config.hybrid), 0)",
        "a hybrid's certificate reports its softmax layer",
        ("tests/suite/models/test_budget.py::test_a_hybrid_has_softmax_in_the_layers_of_its_layout",),
    ),
    Defect(
        "budget",
        "suite/models/certificate.py",
        '("embedding", "trunk.positions", "head")',
        '("embedding", "head")',
        "positions count towards the budget",
        ("tests/suite/models/test_budget.py::test_the_certificate_counts_what_a_real_model_has",),
    ),
    Defect(
        "budget",
        "suite/models/certificate.py",
        "+ 6 * dim * y.ffn_width",
        "+ 4 * dim * y.ffn_width",
        "a third of the feed-forward FLOPs are missing",
        ("tests/suite/models/test_budget.py::test_the_flops_of_the_reference_are_what_torch_counts",),
    ),
    Defect(
        "budget",
        "suite/models/certificate.py",
        "return inputs.positions * per_position",
        "return inputs.length * per_position",
        "FLOPs of one channel are those of the window",
        ("tests/suite/models/test_budget.py::test_the_flops_of_the_reference_are_what_torch_counts",),
    ),
    Defect(
        "budget",
        "suite/models/inputs.py",
        "dim * s.horizon * s.outputs)",
        "dim * s.horizon)",
        "the head of a distribution costs as much as that of a point",
        ("tests/suite/models/test_budget.py::test_the_flops_of_the_reference_are_what_torch_counts",),
    ),
    Defect(
        "budget",
        "suite/config/hybrids.py",
        '"quarter": lambda n: set(range(4, n + 1, 4))',
        '"quarter": lambda n: set(range(1, n + 1, 4))',
        "other layers keep softmax than in the paper's table",
        ("tests/suite/config/test_config.py",),
    ),
)
