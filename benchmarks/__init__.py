"""Benchmarks: ``bench_*.py`` are asv's suite; the others are programs of their own."""
