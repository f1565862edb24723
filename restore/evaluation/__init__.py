"""Evaluation: scores of weights on given pictures, in comparison with classical methods."""
