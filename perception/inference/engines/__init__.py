"""Where the sources of a folder run are run: in this process, or in many of a cluster.

`engine` is the interface. `local` is this process with its reading processes. `ray_engine` is Ray: `cluster` joins or
starts one and looks whether it can do the work, `crew` hands groups of sources to its actors and gathers what comes of
them, `member` is an actor, and `folder_worker` what it does.

Whichever it is, sources are grouped by their loop (`Loop.shards`), so that results are the same; and the process that
was started alone writes the journal.
"""
