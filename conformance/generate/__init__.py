"""Writes conformance vectors: models, streams and what a decoder must make of them.

Written from the text in spec/ alone; shares no code with any decoder.
"""
