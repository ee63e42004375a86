"""The front ends: the page and the command line. Nothing here computes a statistic."""
