"""Inference: tiles, one image, folders."""
