"""`fastdl bench`: how fast fastdl is on this machine, against the peers that are installed. See docs/benchmarks.md.

`cases` and `steps` say what is timed, `worker` runs one engine in a process of its own, `runner` asks the workers in turn, `report` shows
the results, `compare` sets two of them side by side.
"""
