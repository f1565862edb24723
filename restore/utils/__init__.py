"""Helpers that know nothing of images: atomic writing of files."""
