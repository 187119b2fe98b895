"""Options and exit codes of commands, generation and scoring."""

from __future__ import annotations

from tests.mutants.defect import Defect

EFFECT = "tests/suite/cli/test_every_option_has_an_effect.py::test_two_values_of_an_option_do_not_do_the_same"

COMMANDS: tuple[Defect, ...] = (
    Defect(
        "commands",
        "suite/cli/commands/budget.py",
        '"track": track, "hybrid": hybrid}',
        '"track": track, "hybrid": None}',
        "--hybrid does nothing",
        (f"{EFFECT}[budget --hybrid]",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/budget.py",
        'typer.Exit(0 if found["matched"] else 1)',
        "typer.Exit(0)",
        "the exit code does not say that the budget is exceeded",
        ("tests/suite/cli/test_interface.py::test_a_budget_that_is_exceeded_has_exit_code_1_and_names_what_fits",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/show.py",
        '"track": track, "hybrid": hybrid}',
        '"track": None, "hybrid": hybrid}',
        "--track does nothing",
        (f"{EFFECT}[show --track]",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/boards/leaderboard.py",
        "domain=domain, scale=scale, badges",
        "domain=domain, badges",
        "--scale does nothing",
        (f"{EFFECT}[leaderboard --scale]",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/boards/leaderboard.py",
        '"markdown" if markdown else "table"',
        '"table"',
        "--markdown does nothing",
        ("tests/suite/cli/test_interface.py::test_markdown_and_tables_go_to_stdout",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/language.py",
        "torch.Generator().manual_seed(seed)",
        "torch.Generator().manual_seed(0)",
        "--seed does nothing",
        (f"{EFFECT}[generate --seed]",),
    ),
    Defect(
        "commands",
        "suite/language/generate.py",
        "logits_V.topk(min(top_k, logits_V.numel()))",
        "logits_V.topk(min(top_k + 1, logits_V.numel()))",
        "one token more than requested can be drawn",
        ("tests/suite/language/test_generate.py::test_tokens_are_drawn_as_often_as_the_temperature_and_top_k_say",),
    ),
    Defect(
        "commands",
        "suite/language/generate.py",
        "(candidates_K / temperature)",
        "(candidates_K * temperature)",
        "a high temperature makes the text certain",
        ("tests/suite/language/test_generate.py::test_tokens_are_drawn_as_often_as_the_temperature_and_top_k_say",),
    ),
    Defect(
        "commands",
        "suite/language/scoring.py",
        "ids[max(0, end - 1 - length) : end - 1]",
        "ids[max(0, end - length) : end - 1]",
        "each window reads one token less than fits",
        (
            "tests/suite/training/test_language_runs.py::test_each_token_of_a_long_text_is_scored_once_in_windows_of_full_context",
        ),
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
        (f"{EFFECT}[run --unmatched]",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/run.py",
        '"skip_variant_layers": skip_variant_layers,',
        '"skip_variant_layers": False,',
        "--skip-variant-layers does nothing",
        (f"{EFFECT}[run --skip-variant-layers]",),
    ),
    Defect(
        "commands",
        "suite/cli/commands/check.py",
        "contract.run_checks(name, slow=slow)",
        "contract.run_checks(name, slow=False)",
        "--slow does nothing for mixers",
        (f"{EFFECT}[check --slow]",),
    ),
)
