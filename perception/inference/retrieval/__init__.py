"""Folders of queries against a folder of geo-tagged tiles.

The gallery is encoded once into a bank on disk; queries are a kind of folder like any other.
"""
