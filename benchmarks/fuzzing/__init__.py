"""The parts of benchmarks/fuzz.py: what is damaged, how, and how a case and many cases run."""
