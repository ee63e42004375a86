"""Every compiled loop: serial, without the GIL, without validation.

`exp` holds the exponential and what the families share; each other module is one
family of kernels. Conventions: lazy signatures, private names, outputs last and
preallocated, inputs C-contiguous and read-only, the return value is the first row
that cannot be used, or -1. Threads are `core.parallel`'s business.
"""
