"""The command line: parses, calls the library, and reports."""
