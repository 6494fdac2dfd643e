"""One file a paper; each has `get_config(variant)`, and a docstring to reproduce it from."""
