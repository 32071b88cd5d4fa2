"""What the trials of reliability are made of; each trial is a script of its own beside this.

world      a small corpus that changes, and an embedder whose vectors tell texts apart
holdings   what an index holds, as values that can be compared
forks      a function run in a process of its own, which may be killed
faults     where a process dies: at a call of the store or of the system, by name
mutants    files damaged in every way that is known
report     the machine, the table and the JSON

kill, fuzz, accidents, readers: the trials. ``python benchmarks/reliability/kill.py --help``.
"""
