# Crash tests: the log on a simulated disk.
#
#   make crash         40,000 seeds, every operation of some, damage, and the deliberately wrong build
#   make crash-short   what CI runs: 10,000 seeds, about a minute of one core
CRASH_OBJ := $(patsubst %.c,$(B)/%.o,$(wildcard tests/crash/spool_model*.c) $(wildcard tests/sim/sim_disk*.c tests/sim/sim_device*.c) \
             $(wildcard worker/spool/*.c) proto/spool_record.c $(BASE_SRC))
CRASH_BIN := $(addprefix $(B)/tests/crash/,crash_spool spool_damage spool_states)
CRASH_SEEDS ?= 40000
CRASH_EVERY ?= 20

$(CRASH_BIN): %: %.o $(CRASH_OBJ)
	$(CC) $(ALL_CFLAGS) -o $@ $^ $(ALL_LDFLAGS)

.PHONY: crash crash-short
crash: $(CRASH_BIN)
	$(B)/tests/crash/crash_spool --early-ack 200
	$(B)/tests/crash/spool_states
	$(B)/tests/crash/spool_damage
	$(B)/tests/crash/crash_spool --every $(CRASH_EVERY)
	$(B)/tests/crash/crash_spool --seeds $(CRASH_SEEDS)
crash-short: CRASH_SEEDS = 10000
crash-short: CRASH_EVERY = 1
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
