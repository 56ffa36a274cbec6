"""`make bench`: all tables, one after the other."""

from benchmarks import store

if __name__ == "__main__":
    store.main([])
