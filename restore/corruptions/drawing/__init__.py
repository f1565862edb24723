"""What corruptions draw with: text, shapes, marks and logos."""
