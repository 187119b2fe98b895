"""Options and exit codes of commands, generation and scoring."""

from __future__ import annotations

from tests.mutants.defect import Defect

COMMANDS: tuple[Defect, ...] = (
    Defect(
        "commands",
        "suite/cli/commands/budget.py",
        "track=track, hybrid=hybrid, sets",
        "track=track, hybrid=None, sets",
        "--hybrid does nothing",
        ("tests/suite/cli/test_interface.py",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/budget.py",
        'typer.Exit(0 if found["matched"] else 1)',
        "typer.Exit(0)",
        "the exit code does not say that the budget is exceeded",
        ("tests/suite/cli/test_interface.py",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/show.py",
        "horizon=horizon, track=track, hybrid=hybrid, sets",
        "horizon=horizon, track=None, hybrid=hybrid, sets",
        "--track does nothing",
        ("tests/suite/cli/test_interface.py",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/leaderboard.py",
        "domain=domain, scale=scale)",
        "domain=domain)",
        "--scale does nothing",
        ("tests/suite/cli/test_interface.py",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/leaderboard.py",
        "print_boards(found, as_markdown=markdown)",
        "print_boards(found, as_markdown=False)",
        "--markdown does nothing",
        ("tests/suite/cli/test_interface.py",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/language.py",
        "torch.Generator().manual_seed(seed)",
        "torch.Generator().manual_seed(0)",
        "--seed does nothing",
        (
            "tests/suite/cli/test_interface.py",
            "tests/suite/language/test_generate.py",
        ),
    ),
    Defect(
        "commands",
        "suite/language/generate.py",
        "logits_V.topk(min(top_k, logits_V.numel()))",
        "logits_V.topk(min(top_k + 1, logits_V.numel()))",
        "one token more than asked for can be drawn",
        ("tests/suite/language/test_generate.py",),
    ),
    Defect(
        "commands",
        "suite/language/generate.py",
        "(candidates_K / temperature)",
        "(candidates_K * temperature)",
        "a high temperature makes the text certain",
        ("tests/suite/language/test_generate.py",),
    ),
    Defect(
        "commands",
        "suite/language/scoring.py",
        "ids[max(0, end - 1 - length) : end - 1]",
        "ids[max(0, end - length) : end - 1]",
        "each window reads one token less than fits",
        ("tests/suite/language",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/doctor.py",
        "all(check.ok for check in found)",
        "any(check.ok for check in found)",
        "one good check hides the others",
        ("tests/suite/cli/test_doctor_damage.py",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/run.py",
        '"unmatched": unmatched,',
        '"unmatched": False,',
        "--unmatched does nothing",
        (
            "tests/suite/cli/test_interface.py",
            "tests/suite/training/test_runs.py",
        ),
    ),
    Defect(
        "commands",
        "suite/cli/commands/run.py",
        '"skip_variant_layers": skip_variant_layers,',
        '"skip_variant_layers": False,',
        "--skip-variant-layers does nothing",
        (
            "tests/suite/cli/test_interface.py",
            "tests/suite/training/test_runs.py",
        ),
    ),
    Defect(
        "commands",
        "suite/cli/commands/check.py",
        "contract.run_checks(name, slow=slow)",
        "contract.run_checks(name, slow=False)",
        "--slow does nothing for mixers",
        ("tests/suite/cli/test_interface.py",),
    ),
)
