"""Curation, disturbed on purpose: killed, starved of memory or disk, refused its folder, and run twice at once.

What must hold afterwards is in `checks.py`. Nothing here knows how the package works inside.
"""
