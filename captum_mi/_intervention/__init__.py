"""Watching what the modules of a model do, and putting something else in their place."""
