# Crash tests: the log on a simulated disk.
#
#   make crash         40,000 seeds, every operation of some, damage, and the deliberately wrong build
#   make crash-short   what CI runs: 10,000 seeds, 1,000 walks of roles; about two minutes of one core
CRASH_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/crash/spool_model*.c) $(wildcard tests/sim/sim_disk*.c tests/sim/sim_device*.c) \
             $(wildcard worker/spool/*.c) proto/spool_record.c $(BASE_SRC))
CRASH_BIN := $(addprefix $(B)/tests/crash/,crash_spool spool_damage spool_states)
CRASH_SEEDS ?= 40000
CRASH_EVERY ?= 20

$(CRASH_BIN): %: %.o $(CRASH_OBJ)
	$(CC) $(ALL_CFLAGS) -o $@ $^ $(ALL_LDFLAGS)

# The same for lanes that change their role and messages that change their lane.
ROLE_WALK := $(B)/tests/unit/test_role
ROLE_WALKS ?= 10000
ROLE_BUGS := 1 2 3 4 5
ROLE_PARTS := role role_log shard_copy
.PHONY: crash-roles role-bugs $(ROLE_BUGS:%=role-bug-%)
crash-roles: $(ROLE_WALK) role-bugs
	@ROLE_SEEDS=$(ROLE_WALKS) $< >$(B)/crash-roles.log 2>&1 || { tail -n 30 $(B)/crash-roles.log; exit 1; }
	@grep -a '^gave' $(B)/crash-roles.log
role-bugs: $(ROLE_BUGS:%=role-bug-%)
	@echo "role-bugs: all of $(words $(ROLE_BUGS)) were found"
$(ROLE_BUGS:%=role-bug-%): role-bug-%: $(ROLE_WALK)
	@mkdir -p $(B)/role-bug-$*
	@for f in $(ROLE_PARTS); do \
	    $(CC) $(CPPFLAGS) $(ALL_CFLAGS) -DROLE_BUG=$* -c -o $(B)/role-bug-$*/$$f.o worker/lane/$$f.c || exit 1; \
	done
	@$(CC) $(ALL_CFLAGS) -o $(B)/role-bug-$*/walk $(ROLE_WALK).o $(B)/libsim.a $(ROLE_PARTS:%=$(B)/role-bug-$*/%.o) \
	    $(B)/libworker.a $(B)/libcore.a $(B)/libproto.a $(B)/libworker.a $(B)/libcore.a $(B)/libproto.a \
	    $(ALL_LDFLAGS) -lcmocka $(LIBS_worker) $(LIBS_core)
	@if ROLE_SEEDS=40 $(B)/role-bug-$*/walk >$(B)/role-bug-$*/log 2>&1; then \
	    echo "FAIL role bug $* was not found"; exit 1; \
	else echo "role bug $*: `grep -a '^seed' $(B)/role-bug-$*/log | tail -n 1`"; fi

.PHONY: crash crash-short
crash: crash-roles
crash: $(CRASH_BIN)
	$(B)/tests/crash/crash_spool --early-ack 200
	$(B)/tests/crash/spool_states
	$(B)/tests/crash/spool_damage
	$(B)/tests/crash/crash_spool --every $(CRASH_EVERY)
	$(B)/tests/crash/crash_spool --seeds $(CRASH_SEEDS)
crash-short: CRASH_SEEDS = 10000
crash-short: CRASH_EVERY = 1
crash-short: ROLE_WALKS = 1000
crash-short: crash

# The spool on a real disk; measures only: make spool-speed SPOOL_DIR=/some/disk/dir
SPOOL_DIR ?= $(B)/spool_speed.d
SPEED_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard worker/io/*.c) $(wildcard worker/spool/*.c) proto/spool_record.c $(BASE_SRC))
$(B)/tests/crash/spool_speed: $(B)/tests/crash/spool_speed.o $(SPEED_OBJ)
	$(CC) $(ALL_CFLAGS) -o $@ $^ $(ALL_LDFLAGS) $(LIBS_worker)
.PHONY: spool-speed
spool-speed: $(B)/tests/crash/spool_speed
	$< $(SPOOL_DIR)

# fuzz_segment runs the spool itself.
FUZZ_SPOOL_OBJ := $(patsubst %.c,$(B)/fuzz/%.o,$(wildcard worker/spool/*.c) $(wildcard tests/sim/sim_disk*.c tests/sim/sim_device*.c))
$(B)/fuzz/libspool.a: $(FUZZ_SPOOL_OBJ) $(FUZZ_OBJ)
	@rm -f $@
	@ar rcs $@ $^
$(B)/fuzz/fuzz_segment: $(B)/fuzz/libspool.a

# A lane with many entries changes its role; measures only: make role-speed ROLE_ENTRIES=1000000
ROLE_ENTRIES ?= 1000000
$(B)/tests/crash/role_speed: $(B)/tests/crash/role_speed.o $(B)/libsim.a $(B)/libworker.a $(B)/libcore.a $(B)/libproto.a
	$(CC) $(ALL_CFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(filter %.a,$^) $(ALL_LDFLAGS) \
	    -lcmocka $(LIBS_worker) $(LIBS_core)
.PHONY: role-speed
role-speed: $(B)/tests/crash/role_speed
	$< $(ROLE_ENTRIES) 2>/dev/null
