"""Getting better off the hot path: outcomes, training, evaluation, promotion, replay."""
