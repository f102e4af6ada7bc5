"""Reports as people read them: pages, tables and pictures out of records. Pure but for a picture's file.

Knows neither where a report came from nor where it is shown.
"""
