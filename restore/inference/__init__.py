"""Inference: one image on a device, in tiles."""
