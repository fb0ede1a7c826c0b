"""Answerers: the built-in probe, a constant, and (with extras) language models."""
