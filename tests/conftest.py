"""Lies here so that pytest puts this folder on the path: helpers such as `tiny` can be imported by every test."""

import os

# Before torch is imported: the tensors of tests are small, and on a busy machine threads mostly wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Nothing is written outside the folders of tests: compiled graphs of OpenVINO are not kept.
os.environ["POISE_CACHE"] = ""
