"""Scores: metrics, baselines, the report on the test rows, and the arms of a comparison.

Knows what was answered. What follows from the scores is decided elsewhere.
"""
