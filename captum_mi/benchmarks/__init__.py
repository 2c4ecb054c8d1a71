"""Benchmarks: ``python -m captum_mi.benchmarks NAME``."""
