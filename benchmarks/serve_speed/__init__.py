"""What the measures and the soak of the server are made of.

running   a server in a process of its own, and the memory of all its processes
wire      one connection that stays open: a request out, a reply in
wide      a server whose model costs nothing and is 1536 wide: what is left is the encoding
measures  each figure of the table
traffic   what the soak asks for, and what it may be answered
hostile   what no client sends
document  the tables of docs/serving.md
"""
