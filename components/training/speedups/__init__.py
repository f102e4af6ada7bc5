"""Exact savings: the same gradients and losses with less time or memory, each to be switched off by itself.

Knows the layers of a base, and nothing of methods' settings.
"""
