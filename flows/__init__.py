"""The flows of Prefect, one file each: what happens in which order, from data to a version in Production.

How each step is done stands in the folders below and in components and registry. Knows nothing of the command line.
"""
