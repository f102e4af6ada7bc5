"""A frozen base model: which ones fit, made into a folder, hashed, verified and loaded.

Knows no task and no adapter.
"""
