"""Evaluation: how good weights are on given pictures, against what people would use instead."""
