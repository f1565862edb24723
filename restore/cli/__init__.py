"""The command line: parse, call, report; nothing else."""
