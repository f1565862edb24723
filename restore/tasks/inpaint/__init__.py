"""inpaint: detection and inpainting of opaque bars, strokes, rectangles and text."""
