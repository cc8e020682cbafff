"""Looks over data and settings before a run, and turns a folder of photographs into a data set."""
