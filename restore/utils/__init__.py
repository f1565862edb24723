"""Helpers of every room that know nothing of images: files that are written whole."""
