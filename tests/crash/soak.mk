# Whole nodes under load whose processes are killed at random.
#
#   make kill          50 kills, the short form: debug build
#   make soak-kill          500 kills of the debug build, 100 of the sanitizer build, bodies in chunks, three workers
#   make soak-kill KILL_SEED=7   the same moments and victims again
KILL_SEED ?=
KILL_LOOP := /usr/bin/python3 tests/crash/kill_loop.py $(if $(KILL_SEED),--seed $(KILL_SEED))

.PHONY: kill soak-kill
kill: all
	MOCHILA_BIN=$(B) $(KILL_LOOP) --kills 50
soak-kill: all
	$(MAKE) BUILD=san B=build/san all
	MOCHILA_BIN=$(B) $(KILL_LOOP) --kills 400
	MOCHILA_BIN=$(B) $(KILL_LOOP) --kills 100 --mode chunking --workers 3
	MOCHILA_BIN=build/san $(KILL_LOOP) --kills 100 --rate 300
