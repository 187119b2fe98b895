"""Compiles every Triton kernel for GPUs that are not present, and reports what resources each one takes.

    python -m kernels.tools.ahead_of_time [--target sm_90 …] [--kernel linear …] [--write docs/kernels.md]

The calls of `kernels.registry` are made on meta tensors, forward and backward, and recorded instead of started.
Registers and stack come from the target's own assembler, shared memory from Triton. A stack other than 0 means spilled
registers.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from kernels.calls import Call, OnGpu
from kernels.gpu.shared.launch import Launch, Target, recording
from kernels.registry import KERNELS, Kernel

TARGETS: tuple[Target, ...] = get_args(Target)
SHARED_LIMIT = {"sm_80": 163 * 1024, "sm_90": 227 * 1024, "sm_100": 227 * 1024, "gfx942": 64 * 1024}
TENSOR_CORES = re.compile(r"mma\.sync|wgmma\.mma|tcgen05\.mma|v_mfma")
BEGIN, END = (
    "<!-- resources: python -m kernels.tools.ahead_of_time --write docs/kernels.md -->",
    "<!-- end of resources -->",
)
_TYPES = {torch.float32: "fp32", torch.float64: "fp64", torch.bfloat16: "bf16", torch.int32: "i32", torch.int8: "i8"}


@dataclass(frozen=True)
class Resources:
    """What one kernel takes on one target. registers, stack: per thread, stack in bytes; shared: bytes per block."""

    kernel: str
    target: Target
    tiles: str
    warps: int
    registers: int
    stack: int
    shared: int
    products: bool
    tensor_cores: bool

    def complaints(self) -> list[str]:
        found = [f"{self.stack} bytes of stack"] if self.stack else []
        if self.shared > SHARED_LIMIT[self.target]:
            found.append(f"{self.shared} bytes of shared memory, {SHARED_LIMIT[self.target]} available")
        if self.products and not self.tensor_cores:
            found.append("products without tensor cores")
        return found


def _calls() -> dict[str, tuple[Kernel, Call, OnGpu]]:
    """Every call that is compiled, by name."""
    found = {}
    for kernel in KERNELS:
        for call in kernel.calls:
            for shape in call.on_gpu:
                found[", ".join(filter(None, (kernel.name, shape.name)))] = kernel, call, shape
    return found


CALLS = _calls()


def start(name: str) -> None:
    """Calls a Triton implementation on meta tensors, forward and backward: inside `recording` nothing runs."""
    kernel, call, shape = CALLS[name]
    results = kernel.load_triton()(*call.arguments(*call.on_meta(shape)))
    results = results if isinstance(results, tuple) else (results,)
    torch.autograd.backward(results, [torch.empty_like(y) for y in results])


def resources(call: str, target: Target) -> list[Resources]:
    """Those of every kernel that the call starts, forward and backward."""
    with recording(target) as launches:
        start(call)
    return [_compiled(call, launch, target) for launch in launches]


def _compiled(call: str, launch: Launch, target: Target) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    gpu = GPUTarget("hip", target, 64) if target == "gfx942" else GPUTarget("cuda", int(target.removeprefix("sm_")), 32)
    names, arguments = launch.kernel.arg_names, launch.arguments
    fixed = {p.name for p in launch.kernel.params if p.is_constexpr} | {n for n in names if arguments[n] is None}
    signature = {n: "constexpr" if n in fixed else _type(arguments[n]) for n in names}
    constants = {(i,): arguments[n] for i, n in enumerate(names) if n in fixed}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if isinstance(arguments[n], Tensor)}
    source = ASTSource(launch.kernel, signature, constants, aligned)
    options = {"num_warps": launch.config.warps, "num_stages": launch.config.stages}
    made = triton.compile(source, target=gpu, options=options)
    assembly = made.asm["amdgcn" if target == "gfx942" else "ptx"]
    registers, stack = _of_amd(assembly) if target == "gfx942" else _of_nvidia(made.asm["cubin"])
    variant = {None: "", False: ", bounded", True: ", exact"}[arguments.get("EXACT")]
    tiles = " ".join(f"{name}={size}" for name, size in launch.config.tiles)
    part = launch.kernel.__name__.removesuffix("_kernel")
    products = "tt.dot" in made.asm["ttir"]
    cores = bool(TENSOR_CORES.search(assembly))
    return Resources(
        f"{call}: {part}{variant}",
        target,
        tiles,
        launch.config.warps,
        registers,
        stack,
        made.metadata.shared,
        products,
        cores,
    )


def _type(x: Any) -> str:
    if isinstance(x, Tensor):
        return "*" + _TYPES[x.dtype]
    return "fp32" if isinstance(x, float) else "i32"


def _of_nvidia(cubin: bytes) -> tuple[int, int]:
    import triton.backends.nvidia as nvidia

    tool = Path(nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        report = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    registers, stack = (re.search(rf"{name}:(\d+)", report) for name in ("REG", "STACK"))
    assert registers is not None, report
    assert stack is not None, report
    return int(registers[1]), int(stack[1])


def _of_amd(assembly: str) -> tuple[int, int]:
    """Vector registers (accumulation registers included), and bytes of scratch or spilled vector registers."""
    found = {
        name: re.search(rf"\.{name}:\s+(\d+)", assembly)
        for name in ("vgpr_count", "vgpr_spill_count", "private_segment_fixed_size")
    }
    counts = {name: int(match[1]) for name, match in found.items() if match is not None}
    assert len(counts) == len(found), counts
    return counts["vgpr_count"], counts["private_segment_fixed_size"] + 4 * counts["vgpr_spill_count"]


def table(rows: Iterable[Resources]) -> str:
    """Markdown: one line per kernel; registers, shared memory in KB and spills for each target.

    Of a kernel that its call starts several times, it shows the start that takes most.
    """
    by_kernel: dict[str, dict[str, Resources]] = {}
    for r in rows:
        found = by_kernel.setdefault(r.kernel, {})
        found[r.target] = max(found.get(r.target, r), r, key=lambda r: (r.stack, r.registers, r.shared))
    lines = ["| kernel | tensor cores | " + " | ".join(TARGETS) + " |", "|---|---|" + "---|" * len(TARGETS)]
    for kernel, found in by_kernel.items():
        cores = (
            "yes"
            if all(r.tensor_cores for r in found.values())
            else "some"
            if any(r.tensor_cores for r in found.values())
            else "no"
        )
        cells = [_cell(found[target]) if target in found else "" for target in TARGETS]
        lines.append(f"| {kernel} | {cores} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(r: Resources) -> str:
    spilled = f", **stack {r.stack}**" if r.stack else ""
    return f"{r.registers}, {r.shared / 1024:.0f} KB{spilled} ({r.tiles}, {r.warps} warps)"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m kernels.tools.ahead_of_time", description="compile the Triton kernels ahead of time"
    )
    parser.add_argument("--target", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--kernel", nargs="+", default=[""], help="the beginning of a call's name")
    parser.add_argument("--write", type=Path, help="a file whose table of resources is replaced")
    options = parser.parse_args()
    calls = [call for call in CALLS if call.startswith(tuple(options.kernel))]
    rows = [r for call in calls for target in options.target for r in resources(call, target)]
    made = table(rows)
    if options.write:
        before, _, rest = options.write.read_text("utf-8").partition(BEGIN)
        options.write.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.partition(END)[2]}", "utf-8")
    sys.stdout.write(made + "\n")
    complaints = [f"{r.kernel} on {r.target}: {', '.join(found)}" for r in rows if (found := r.complaints())]
    sys.stderr.write("".join(f"{line}\n" for line in complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    raise SystemExit(main())
