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
        ("tests/suite/training/optimiser/test_steps.py::test_six_steps_are_those_computed_by_hand",),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        "self.ema.update(self.model, step=self.step)",
        "self.ema.update(self.model, step=0)",
        "the averaged weights are the last ones for ever",
        ("tests/suite/training/optimiser/test_steps.py::test_six_steps_are_those_computed_by_hand",),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        "self.model.parameters(), self.config.train.clip)",
        "self.model.parameters(), self.config.train.clip, norm_type=1.0)",
        "gradients are clipped by another norm",
        (
            "tests/suite/training/optimiser/test_steps.py::test_gradients_are_clipped_by_their_euclidean_norm_over_all_parameters",
        ),
    ),
    Defect(
        "training",
        "suite/training/loop/results.py",
        "value > self.value if task.primary.higher_is_better",
        "value >= self.value if task.primary.higher_is_better",
        "on a tie the later checkpoint is selected",
        ("tests/suite/training/runs/test_runs.py::test_the_checkpoint_that_validation_selects_is_tested",),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        "return cast(nn.Module, self.ema.module) if self.ema else self.model",
        "return self.model",
        "the last weights are evaluated, not the averaged ones",
        ("tests/suite/training/optimiser/test_steps.py::test_six_steps_are_those_computed_by_hand",),
    ),
    Defect(
        "training",
        "suite/training/trainer.py",
        "[(part, count / sum(scored)) for",
        "[(part, 1 / len(parts)) for",
        "accumulated parts weigh equally however many tokens they score",
        (
            "tests/suite/training/optimiser/test_accumulation.py::test_a_batch_in_parts_has_the_gradient_of_the_whole_one",
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
        (
            "tests/suite/training/optimiser/test_steps.py::test_vectors_positions_and_what_a_mixer_declares_do_not_decay",
        ),
    ),
    Defect(
        "training",
        "suite/training/optimisation.py",
        "betas=(train.beta1, train.beta2)",
        "betas=(train.beta1, 0.95)",
        "an option is ignored",
        ("tests/suite/training/optimiser/test_steps.py::test_six_steps_are_those_computed_by_hand",),
    ),
    Defect(
        "training",
        "suite/training/optimisation.py",
        "train.lr, train.min_lr * train.lr",
        "train.lr, train.min_lr",
        "the final learning rate is absolute",
        ("tests/suite/training/optimiser/test_steps.py::test_six_steps_are_those_computed_by_hand",),
    ),
    Defect(
        "training",
        "suite/training/optimisation.py",
        "past = step - self.warmup",
        "past = step",
        "the cosine begins during the warm-up",
        ("tests/suite/training/optimiser/test_steps.py::test_six_steps_are_those_computed_by_hand",),
    ),
    Defect(
        "training",
        "suite/training/evaluate.py",
        "(old_total + total, old_count + count)",
        "(old_total + total / max(count, 1.0), old_count + 1.0)",
        "the mean of the batches' means",
        ("tests/suite/training/test_forecasting_runs.py::test_every_ett_window_is_evaluated_whatever_the_batch_size",),
    ),
    Defect(
        "training",
        "suite/training/evaluate.py",
        "model.train(was_training)",
        "model.train(False)",
        "dropout ends at the first validation",
        (
            "tests/suite/training/optimiser/test_steps.py::test_every_update_is_in_training_mode_also_after_a_validation",
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
