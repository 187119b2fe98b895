"""What one does with a trained language model: generation, scoring, lm-evaluation-harness."""
