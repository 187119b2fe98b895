"""The catalogue: realistic mistakes by area, a few lines each."""

from __future__ import annotations

from tests.mutants.defect import Defect
from tests.mutants.defects.boards import BOARDS
from tests.mutants.defects.budget import BUDGET
from tests.mutants.defects.commands import COMMANDS
from tests.mutants.defects.kernels import KERNELS
from tests.mutants.defects.mixers import MIXERS
from tests.mutants.defects.tasks import TASKS
from tests.mutants.defects.training import TRAINING

DEFECTS: tuple[Defect, ...] = (*TASKS, *KERNELS, *MIXERS, *TRAINING, *BUDGET, *BOARDS, *COMMANDS)
AREAS: tuple[str, ...] = tuple(dict.fromkeys(defect.area for defect in DEFECTS))
