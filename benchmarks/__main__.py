"""`make bench`: all tables, one after the other."""

from benchmarks import extract, store, train

if __name__ == "__main__":
    store.main([])
    extract.main(["--encoder", "clip", "--encoder", "detr", "--num", "16", "--rounds", "3"])
    train.main([])
