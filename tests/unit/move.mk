# The simulation of moves must see wrong machines: each MOVE_BUG breaks one rule, and must be found.
MOVE_BUGS := 1 2 3 4 5
MOVE_MACHINE := machine machine_give machine_take
UNIT_ENV_test_move_sim := ASAN_OPTIONS=detect_leaks=0 # a master that dies frees nothing

.PHONY: move-bugs $(MOVE_BUGS:%=move-bug-%)
move-bugs: $(MOVE_BUGS:%=move-bug-%)
	@echo "move-bugs: all of $(words $(MOVE_BUGS)) were found"
$(MOVE_BUGS:%=move-bug-%): move-bug-%: $(B)/tests/unit/test_move_sim
	@mkdir -p $(B)/move-bug-$*
	@for f in $(MOVE_MACHINE); do \
	    $(CC) $(CPPFLAGS) $(ALL_CFLAGS) -DMOVE_BUG=$* -c -o $(B)/move-bug-$*/$$f.o master/move/$$f.c || exit 1; \
	done
	@$(CC) $(ALL_CFLAGS) -o $(B)/move-bug-$*/sim $(B)/tests/unit/test_move_sim.o \
	    $(MOVE_MACHINE:%=$(B)/move-bug-$*/%.o) $(B)/libmaster.a $(B)/libcore.a $(B)/libproto.a $(B)/libmaster.a \
	    $(ALL_LDFLAGS) -lcmocka $(LIBS_master) $(LIBS_core)
	@if MOVE_SEEDS=4000 $(B)/move-bug-$*/sim >$(B)/move-bug-$*/log 2>&1; then \
	    echo "FAIL move bug $* was not found"; exit 1; \
	else grep -a -m1 '^seed' $(B)/move-bug-$*/log; fi
