"""Uses of a trained language model: generation, scoring, lm-evaluation-harness."""
