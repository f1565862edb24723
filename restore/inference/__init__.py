"""Inference: restoring single images on a device, in tiles."""
