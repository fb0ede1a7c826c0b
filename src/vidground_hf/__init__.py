"""Find the video questions that text alone answers, and keep the ones that need the video."""
