"""From a config and a cache to a finished run folder."""
