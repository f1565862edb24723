"""Folders of images: what is written where, overlapping decoding and computing, several devices, watching."""
