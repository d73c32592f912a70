# make bench: builds in release and writes the figures into bench/results/ (BENCH_ROUNDS=3).
BENCH_ROUNDS ?= 3

.PHONY: bench bench-move demo-move
bench:
	$(MAKE) BUILD=release B=build/release all
	bench/run-all.sh build/release/mochila-bench $(BENCH_ROUNDS)

# Hosts are network namespaces: both need root, iproute2 and python3, and say so.
bench-move:
	@sh tests/deps.sh move
	$(MAKE) BUILD=release B=build/release all
	/usr/bin/python3 bench/bench_move.py build/release

demo-move:
	@sh tests/deps.sh move
	@$(MAKE) --no-print-directory -j$(JOBS) BUILD=release B=build/release all
	@python3 bench/demo_move.py build/release
