"""A page and an HTTP API around the engine of the command line; needs the extra `[web]`."""

LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})  # by which a machine calls itself
