"""Predictions to numbers: metrics with their uncertainty, the evaluation of a run, its model card."""
