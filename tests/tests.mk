# Tests: unit programs and fuzzers. Scenario, node and crash tests have rules of their own below.
#
#   make -k unit           builds and runs every tests/unit/test_*.c; -k goes on after a failure
#   make unit-test_crc     one of them, with its output
#   make fuzz FUZZ_S=10    every tests/fuzz/fuzz_*.c for so many seconds each (needs clang)
#   make tidy              the rules of the house

UNIT_SRC := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN := $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(UNIT_SRC))
BENCH_TEST_OBJ := $(call obj,$(filter-out bench/main.c,$(call src,bench)))
API_TEST_OBJ := $(call obj,$(filter-out master/api/main.c,$(call src,master/api)))
LINK_TEST_OBJ := $(call obj,$(filter-out master/link/main.c,$(call src,master/link)))
CTL_TEST_OBJ := $(call obj,$(filter-out ctl/main.c,$(call src,ctl)))

# A program links the rooms whose headers it includes, and no others: what does not build yet in one
# room breaks the tests of that room alone. Simulated disks, clocks and peers live in tests/sim.
UNIT_ABOVE := $(if $(UNIT_SRC),$(shell grep -lE '^.include "(config|worker|master|ctl|bench|tests/sim)/' $(UNIT_SRC)))
UNIT_WORKER := $(if $(UNIT_SRC),$(shell grep -lE '^.include "(worker|tests/sim)/' $(UNIT_SRC)))
UNIT_SIM := $(if $(UNIT_SRC),$(shell grep -l '^.include "tests/sim/' $(UNIT_SRC)))
UNIT_MASTER := $(if $(UNIT_SRC),$(shell grep -lE '^.include "master/(move/)?[a-z_]+\.h' $(UNIT_SRC)))
unit_bin = $(patsubst tests/unit/%.c,$(B)/tests/unit/%,$(1))

# The simulated side comes first in the link, so that its symbols win.
$(call unit_bin,$(UNIT_SIM)): $(B)/libsim.a
$(call unit_bin,$(UNIT_ABOVE)): $(B)/libcore.a
$(call unit_bin,$(UNIT_WORKER)): $(B)/libworker.a
$(B)/libsim.a: $(call obj,$(call src,tests/sim))
$(call unit_bin,$(UNIT_WORKER)): LIBS_room += $(LIBS_worker)
$(call unit_bin,$(UNIT_MASTER)): $(B)/libmaster.a
$(call unit_bin,$(UNIT_MASTER)): LIBS_room += $(LIBS_master)
$(filter $(B)/tests/unit/test_bench_%,$(UNIT_BIN)): $(BENCH_TEST_OBJ)
$(filter $(B)/tests/unit/test_bench_%,$(UNIT_BIN)): LIBS_room += $(LIBS_bench)
$(filter $(B)/tests/unit/test_api_%,$(UNIT_BIN)): $(API_TEST_OBJ)
$(filter $(B)/tests/unit/test_api_%,$(UNIT_BIN)): LIBS_room += $(LIBS_api)
$(filter $(B)/tests/unit/test_link_%,$(UNIT_BIN)): $(LINK_TEST_OBJ)
$(filter $(B)/tests/unit/test_link_%,$(UNIT_BIN)): LIBS_room += $(LIBS_link)
$(filter $(B)/tests/unit/test_link_trust,$(UNIT_BIN)): $(call obj,ctl/certificate.c)
$(filter $(B)/tests/unit/test_ctl_%,$(UNIT_BIN)): $(CTL_TEST_OBJ)
$(filter $(B)/tests/unit/test_ctl_%,$(UNIT_BIN)): LIBS_room += $(LIBS_ctl)

# Archives twice: the order of prerequisites is not the order in which they need each other.
$(B)/libproto.a: $(call obj,$(PROTO_SRC) $(BASE_SRC)) $(PROTO_GEN:.c=.o)
$(UNIT_BIN): $(B)/tests/unit/%: $(B)/tests/unit/%.o $(B)/libproto.a
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -o $@ $(filter %.o,$^) $(filter %.a,$^) $(filter %.a,$^) $(ALL_LDFLAGS) \
	    -lcmocka $(LIBS_room) $(LIBS_core)
$(UNIT_BIN:=.o): | $(PROTO_GEN:.c=.h) $(EMBED)

# A simulated crash forgets the process with all it held: that is no leak.
UNIT_ENV_test_shard := ASAN_OPTIONS=detect_leaks=0

UNIT_RUNS := $(patsubst tests/unit/%.c,unit-%,$(UNIT_SRC))
.PHONY: unit $(UNIT_RUNS)
unit: $(UNIT_RUNS)
	@echo "unit: $(words $(UNIT_RUNS)) programs passed"
$(UNIT_RUNS): unit-%: $(B)/tests/unit/%
	@if $(UNIT_ENV_$*) $< >$<.log 2>&1; then echo "pass $*"; else echo "FAIL $*"; cat $<.log; exit 1; fi

# Fuzzers: the code under test is compiled once more, with coverage.
FUZZ_CC := clang
FUZZ_S ?= 60
FUZZ_FLAGS := -std=c11 -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZ_NAMES := $(patsubst tests/fuzz/fuzz_%.c,%,$(FUZZ_SRC))
FUZZ_OBJ := $(patsubst %.c,$(B)/fuzz/%.o,$(BASE_SRC) $(PROTO_SRC) $(CONFIG_SRC) worker/io/dns_parse.c) $(PROTO_GEN:.c=.o)
FUZZ_BIN := $(addprefix $(B)/fuzz/fuzz_,$(FUZZ_NAMES))

$(B)/fuzz/%.o: %.c | $(PROTO_GEN:.c=.h) $(EMBED)
	@mkdir -p $(@D)
	$(FUZZ_CC) $(CPPFLAGS) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<
$(B)/fuzz/libcore.a: $(FUZZ_OBJ)
	@rm -f $@
	@ar rcs $@ $^
$(FUZZ_BIN): $(B)/fuzz/fuzz_%: $(B)/fuzz/tests/fuzz/fuzz_%.o $(B)/fuzz/libcore.a
	$(FUZZ_CC) $(FUZZ_FLAGS) -fsanitize=fuzzer -o $@ $^ -lprotobuf-c -lyaml

# New finds go to the build directory, never into the tree: the corpus there is made by hand.
FUZZ_RUNS := $(addprefix fuzz-,$(FUZZ_NAMES))
.PHONY: fuzz fuzz-build $(FUZZ_RUNS)
fuzz: $(FUZZ_RUNS)
fuzz-build: $(FUZZ_BIN)
$(FUZZ_RUNS): fuzz-%: $(B)/fuzz/fuzz_%
	@mkdir -p $(B)/fuzz/finds/$*
	@$< -max_total_time=$(FUZZ_S) -timeout=5 -max_len=8192 -verbosity=0 -print_final_stats=1 \
	    -artifact_prefix=$(B)/fuzz/$*- $(B)/fuzz/finds/$* $(wildcard tests/fuzz/corpus/$*) \
	    >$(B)/fuzz/$*.log 2>&1 && \
	    echo "pass fuzz $*: $$(sed -n 's/^stat::number_of_executed_units: *//p' $(B)/fuzz/$*.log) runs" || \
	    { echo "FAIL fuzz $*"; cat $(B)/fuzz/$*.log; exit 1; }

.PHONY: tidy
tidy:
	@sh tests/tidy.sh --self-test
	@sh tests/tidy.sh

# Slow, and its findings are to be read: not part of any gate.
.PHONY: clang-tidy
clang-tidy: $(EMBED) $(PROTO_GEN:.c=.h)
	clang-tidy --quiet $(filter-out %.pb-c.c,$(shell git ls-files '*.c')) -- -I. -I$(B)/gen -D_GNU_SOURCE \
	    -DMOCHILA_VERSION='"$(VERSION)"' -std=c11

# Rings with rules of their own.
-include $(wildcard tests/*/*.mk)
