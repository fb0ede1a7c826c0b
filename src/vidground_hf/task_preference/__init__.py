"""Task preference optimization: a vision-language model that learns to look from spans, boxes and masks.

Needs the `models` extra (torch, transformers); `import vidground_hf` does not load it.
"""
