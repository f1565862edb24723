"""Helpers of every package that know nothing of images: files that are written whole."""
