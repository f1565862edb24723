"""Drawing of text, shapes, marks and logos for corruptions."""
