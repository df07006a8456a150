"""Which ways to distil are there? One file for each: a frozen value that is its own code.

In reading order: protocol → objectives. JAX is imported inside functions only, so that a plan or a report stays light.
"""
