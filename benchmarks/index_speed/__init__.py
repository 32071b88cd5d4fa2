"""What `benchmarks/index.py` measures, in the order of a run.

vectors      clustered vectors, and questions of the same law
world        an index filled with them, and the exact answers
building     the indexes over it: processor seconds, memory, bytes
asking       questions: recall and time of each back-end beside the raw library call
matryoshka   a first pass over short vectors, on vectors of the default model
report       tables, plots, docs/scaling.md
"""
