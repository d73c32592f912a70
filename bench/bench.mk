# make bench: builds in release and writes the figures into bench/results/ (BENCH_ROUNDS=3).
BENCH_ROUNDS ?= 3

.PHONY: bench
bench:
	$(MAKE) BUILD=release B=build/release all
	bench/run-all.sh build/release/mochila-bench $(BENCH_ROUNDS)
