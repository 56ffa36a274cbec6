"""`make bench`: all tables, one after the other."""

from benchmarks import shards

if __name__ == "__main__":
    shards.main()
