"""The commands of `preface`, one file for each part of an adapter's life.

Each reads its arguments, sets the environment, calls one thing and shows what it did. Rules are not known here.
"""
