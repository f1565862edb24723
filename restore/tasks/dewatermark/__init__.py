"""dewatermark: detection and removal of semi-transparent watermarks."""
