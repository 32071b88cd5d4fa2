"""What ``benchmarks/embed.py`` is made of, in the order it works.

shapes    networks of published sizes and random weights, one backbone under every reasoner
inputs    the four things that are embedded, at exact sizes
flops     how many operations a model has to do for one of them
clock     time, memory, and what the machine can do at best
cells     measurements: latency of one item, throughput of a batch, one latent step
written   the baseline that thinks in words, ours and transformers' own
targets   what was asked for, beside what was found
report    the table and the JSON
check     parity on this machine, before anything is timed
"""
