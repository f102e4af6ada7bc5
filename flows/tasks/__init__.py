"""The steps that flows are made of: each reads, calls a component or the registry, and writes.

Their order is a flow's matter, not theirs; rules and arithmetic stand in components and registry.
"""
