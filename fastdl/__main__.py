"""`python -m fastdl` is the command `fastdl`."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
