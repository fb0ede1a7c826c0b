"""What a stranger's bytes may do to the package: give a result, or one of its own errors, and nothing else.

Each target takes bytes; hypothesis gives them in `tests/test_fuzz.py`, and atheris in `python -m tests.fuzz`.
"""
