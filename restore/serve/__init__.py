"""A page and an HTTP API around the engine of the command line; needs the extra `[web]`."""
