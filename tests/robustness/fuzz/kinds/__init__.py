"""One file for each kind of input.

`make(folder)` writes valid samples once, `load(folder)` opens them in each worker, and
`attempt(case, seed, scratch)` gives the damaged input of that number to the code under test: it returns where
the input is still valid and raises what that code raises. `NAMED` is a pattern that a refusal's text must
have, for it must name a file or a field. The damage is a function of the samples and the seed alone.
"""
