"""The verbs that look after an index as a whole: whole, small, kept, moved, made anew.

    check, repair                     does it hold together
    optimize, collect_garbage         fast and small
    tags, tag, untag, restore         states to come back to
    rebuild                           the same documents through another model
    export_index, import_index        one folder of Parquet

A second door beside `mmsearch.engine`: none of these needs a query. It knows no terminal.
"""
