"""inpaint: finds solid bars, strokes and text over a picture and fills what they hide."""
