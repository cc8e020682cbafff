"""Reads outlines from the files of annotation programs and draws them as index labels."""
