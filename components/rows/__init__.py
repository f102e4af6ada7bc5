"""Rows out of files of every format: each is kept or named, none is lost without a word.

Finds a row's text and target. Whether they are of any use is not known here.
"""
