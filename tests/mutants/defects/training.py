"""The training loop, its optimiser, evaluation and checkpoints."""

from __future__ import annotations

from tests.mutants.defect import Defect

TRAINING: tuple[Defect, ...] = (
    Defect(
        "training",
        "suite/training/trainer.py",
        "self.schedule.step_update(self.step)",
        "self.schedule.step_update(self.step + 1)",
        "the schedule is one step early",
        ("tests/suite/training/test_optimiser.py",),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        "self.ema.update(self.model, step=self.step)",
        "self.ema.update(self.model, step=0)",
        "the averaged weights are the last ones for ever",
        ("tests/suite/training/test_optimiser.py",),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        "self.model.parameters(), self.config.train.clip)",
        "self.model.parameters(), self.config.train.clip, norm_type=1.0)",
        "gradients are clipped by another norm",
        ("tests/suite/training/test_optimiser.py",),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        "value > self.value if task.primary.higher_is_better",
        "value >= self.value if task.primary.higher_is_better",
        "on a tie the later checkpoint is selected",
        (
            "tests/suite/training/test_optimiser.py",
            "tests/suite/training/test_runs.py",
        ),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        "return cast(nn.Module, self.ema.module) if self.ema else self.model",
        "return self.model",
        "the last weights are evaluated, not the averaged ones",
        (
            "tests/suite/training/test_optimiser.py",
            "tests/suite/training/test_runs.py",
        ),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        "[(part, count / sum(scored)) for",
        "[(part, 1 / len(parts)) for",
        "accumulated parts weigh equally however many tokens they score",
        (
            "tests/suite/training/test_optimiser.py",
            "tests/suite/training/test_runs.py",
            "tests/suite/training/test_resume.py",
        ),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        'self.ema.module.load_state_dict(state["ema"])',
        'self.ema.module.load_state_dict(state["model"])',
        "a resumed run forgets the averaged weights",
        ("tests/suite/training/test_resume.py",),
    ),
    Defect(
        "training",
        "suite/training/optimisation.py",
        'name.endswith(".bias") or name in kept',
        'name.endswith(".bias")',
        "positions decay",
        ("tests/suite/training/test_optimiser.py",),
    ),
    Defect(
        "training",
        "suite/training/optimisation.py",
        "betas=(train.beta1, train.beta2)",
        "betas=(train.beta1, 0.95)",
        "an option is ignored",
        ("tests/suite/training/test_optimiser.py",),
    ),
    Defect(
        "training",
        "suite/training/optimisation.py",
        "train.lr, train.min_lr * train.lr",
        "train.lr, train.min_lr",
        "the final learning rate is absolute",
        ("tests/suite/training/test_optimiser.py",),
    ),
    Defect(
        "training",
        "suite/training/optimisation.py",
        "past = step - self.warmup",
        "past = step",
        "the cosine begins during the warm-up",
        ("tests/suite/training/test_optimiser.py",),
    ),
    Defect(
        "training",
        "suite/training/evaluate.py",
        "(old_total + total, old_count + count)",
        "(old_total + total / max(count, 1.0), old_count + 1.0)",
        "the mean of the batches' means",
        (
            "tests/suite/training/test_runs.py",
            "tests/suite/training/test_language_runs.py",
        ),
    ),
    Defect(
        "training",
        "suite/training/evaluate.py",
        "model.train(was_training)",
        "model.train(False)",
        "dropout ends at the first validation",
        (
            "tests/suite/training/test_optimiser.py",
            "tests/suite/training/test_runs.py",
        ),
    ),
    Defect(
        "training",
        "suite/training/checkpoint.py",
        "if seal != _SEAL + digest.hexdigest().encode():",
        "if len(seal) != _SEAL_BYTES:",
        "a damaged checkpoint loads",
        ("tests/suite/training/test_checkpoints.py",),
    ),
)
