"""Task preference: a vision-language model learns to look by heads for moments, boxes and masks.

The public names; what each does is in the modules.
"""
