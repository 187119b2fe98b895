"""`python -m tests.gpu.require`: exit code 2 and one line where there is no GPU, else one line that names it."""

from __future__ import annotations

import sys

import torch

from kernels.implementations import gpu_kind


def main() -> int:
    if not torch.cuda.is_available():
        sys.stderr.write(
            f"error: make test-gpu needs a GPU, and PyTorch {torch.__version__} finds none; without one, its tests run "
            "in Triton's interpreter: TRITON_INTERPRET=1 pytest -m gpu tests/gpu\n"
        )
        return 2
    device = torch.device("cuda", torch.cuda.current_device())
    sys.stdout.write(f"{torch.cuda.get_device_name(device)} ({gpu_kind(device)}), PyTorch {torch.__version__}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
