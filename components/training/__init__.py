"""Training of adapters: batches, steps, the loop, checkpoints and the search for settings.

Sees training and validation rows alone. Knows no report, no gate and no version.
"""
