"""Lies here so that pytest puts this folder on the path: helpers such as `tiny` can be imported by every test."""
