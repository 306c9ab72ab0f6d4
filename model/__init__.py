"""Judgement: pure functions and modules from samples to numbers, and the readers of data sets."""
