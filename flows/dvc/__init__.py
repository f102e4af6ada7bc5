"""The only place that runs DVC: data and bases brought up to date, and prepared rows fetched by their hash.

What the stages do is written in dvc.yaml and in components; nothing of it is known here.
"""
