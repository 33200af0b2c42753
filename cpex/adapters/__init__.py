"""The guard where agents already live: one module for each framework, each imported by the program that uses it.

Every adapter translates: what the framework calls into an operation of the guard, and the guard's answer into what the
framework's own programs expect. Which hooks run, and what a denial is, is the guard's business.
"""
