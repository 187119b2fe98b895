"""Docstrings of the public contracts have Args, Returns and Raises: shapes, units, and what can fail."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Files whose public functions, methods and classes are a contract that others build on.
CONTRACTS = (
    "backbones/mixers/__init__.py",
    "backbones/mixers/base.py",
    "backbones/mixers/registry.py",
    "backbones/mixers/priors/base.py",
    "backbones/base.py",
    "backbones/contract/run.py",
    "tasks/base.py",
    "tasks/describing.py",
    "tasks/registry.py",
    "tasks/contract/run.py",
    "kernels/attention.py",
    "kernels/channelwise.py",
    "kernels/free_energy.py",
    "kernels/gates.py",
    "kernels/hyper/lag_mixing.py",
    "kernels/linear/sums.py",
    "kernels/linear/exact.py",
    "kernels/linear/free_energy.py",
    "kernels/prefix_softmax.py",
    "kernels/projection.py",
    "kernels/rows.py",
    "kernels/scan.py",
    "kernels/selective/sums.py",
    "kernels/selective/exact.py",
    "kernels/selective/free_energy.py",
    "kernels/short_conv.py",
    "kernels/taylor.py",
    "suite/config/run_config.py",
    "suite/models/candidate.py",
    "suite/models/inputs.py",
    "suite/models/budget.py",
    "suite/models/resolve.py",
    "suite/records/record.py",
    "suite/boards/board.py",
    "suite/boards/columns/column.py",
    "suite/boards/columns/table.py",
    "suite/training/run.py",
)


def public_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef]]:
    """Functions of a module and methods of its public classes; overloads, properties and `__init__` are left out."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node.name, node
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    decorators = {ast.unparse(d).split("(")[0] for d in method.decorator_list}
                    if not decorators & {
                        "property",
                        "overload",
                        "cached_property",
                        "field_validator",
                        "model_validator",
                        "override",
                    }:
                        yield f"{node.name}.{method.name}", method


def missing_sections(function: ast.FunctionDef) -> list[str]:
    """Which of Args, Returns (or Yields) and Raises the docstring needs and lacks."""
    text = ast.get_docstring(function) or ""
    arguments = [
        a.arg
        for a in [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        if a.arg not in ("self", "cls")
    ]
    returns = function.returns is not None and ast.unparse(function.returns) not in ("None", "NoReturn")
    raises = any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(function))
    missing = ["Args"] if arguments and "Args:" not in text else []
    if "Args:" in text:
        missing += [
            f"Args: {name}"
            for name in arguments
            if f"{name}:" not in text and f"{name} " not in text and f"{name}," not in text
        ]
    missing += ["Returns"] if returns and not ("Returns:" in text or "Yields:" in text) else []
    return missing + (["Raises"] if raises and "Raises:" not in text else [])


@pytest.mark.parametrize("file", CONTRACTS)
def test_public_contracts_say_what_they_take_return_and_raise(file):
    tree = ast.parse((ROOT / file).read_text("utf-8"))
    found = [(name, function.lineno, missing_sections(function)) for name, function in public_functions(tree)]
    wrong = [f"{file}:{line}: {name} lacks {', '.join(missing)}" for name, line, missing in found if missing]
    assert not wrong, "\n".join(wrong)
