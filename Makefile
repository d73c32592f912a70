# mochila - one non-recursive Makefile.
#
#   make            builds everything into $(B)
#   BUILD=debug     (default for tests) -O1 -g with -Werror
#   BUILD=san       ASan + UBSan, no recovery
#   BUILD=release   what `make demo`, `make bench` and `make install` use
BUILD ?= debug
B     ?= build/$(BUILD)
CC    ?= cc
# V=1 shows the commands.
Q := $(if $(V),,@)

WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wno-sign-conversion -Wstrict-prototypes \
        -Wmissing-prototypes -Wcast-qual -Wwrite-strings -Wundef -Wvla -Wformat=2 \
        -Wimplicit-fallthrough -Wnull-dereference
# Texts for people are cut on purpose where a fixed buffer is full.
WARN += $(if $(findstring clang,$(CC)),,-Wno-format-truncation)
OPT_debug   := -O1 -g -Werror
OPT_san     := -O1 -g -Werror -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_release := -O2 -g -fno-plt
# One instruction set above the baseline, as every server since 2009 has it; crc falls back at run time.
CPPFLAGS += -I. -I$(B)/gen -D_GNU_SOURCE -DMOCHILA_VERSION='"$(VERSION)"' $(FAULTS)
CFLAGS   ?=
ALL_CFLAGS := -std=c11 $(WARN) $(OPT_$(BUILD)) -MMD -MP $(CFLAGS)
LDFLAGS_san := -fsanitize=address,undefined
ALL_LDFLAGS := $(LDFLAGS_$(BUILD)) $(LDFLAGS)
VERSION := 0.1.0

src = $(sort $(foreach d,$(1),$(wildcard $(d)/*.c)))
obj = $(patsubst %.c,$(B)/%.o,$(1))

BASE_SRC   := $(call src,base)
PROTO_SRC  := $(call src,proto)
CONFIG_SRC := $(call src,config)
PROTO_GEN  := $(patsubst proto/%.proto,$(B)/gen/proto/%.pb-c.c,$(wildcard proto/*.proto))
WORKER_LIB_SRC := $(call src,worker/io worker/spool worker/smtp worker/lane worker/exchange) \
                  $(filter-out worker/main.c,$(call src,worker))
MASTER_LIB_SRC := $(filter-out master/main.c,$(call src,master))

LIBS_core   := -lyaml -lprotobuf-c -ljansson -lpcre2-8
LIBS_worker := -luring -lcares -lcap -lm
LIBS_master := -lsqlite3 -lcap
LIBS_api    := -lmicrohttpd -lm
LIBS_ctl    := -lcurl -lm
LIBS_bench  := -luring -lm

BIN := $(B)/mochilad $(B)/mochila-worker $(B)/mochila-api $(B)/mochila $(B)/mochila-bench
.PHONY: all
all: $(BIN)

CORE_OBJ   := $(call obj,$(CONFIG_SRC) $(PROTO_SRC) $(BASE_SRC)) $(PROTO_GEN:.c=.o)
WORKER_OBJ := $(call obj,$(WORKER_LIB_SRC))
MASTER_OBJ := $(call obj,$(MASTER_LIB_SRC))

$(B)/libcore.a: $(CORE_OBJ)
$(B)/libworker.a: $(WORKER_OBJ)
$(B)/libmaster.a: $(MASTER_OBJ)
$(B)/lib%.a:
	@rm -f $@
	@ar rcs $@ $^

define link
	@mkdir -p $(@D)
	@echo '  LINK $@'
	$(Q)$(CC) $(ALL_CFLAGS) -o $@ $(filter %.o %.a,$^) $(ALL_LDFLAGS)
endef
$(B)/mochila-worker: $(B)/worker/main.o $(B)/libworker.a $(B)/libcore.a
	$(link) $(LIBS_worker) $(LIBS_core)
$(B)/mochilad: $(B)/master/main.o $(B)/libmaster.a $(B)/libcore.a
	$(link) $(LIBS_master) $(LIBS_core)
$(B)/mochila-api: $(call obj,$(call src,master/api)) $(B)/libcore.a
	$(link) $(LIBS_api) $(LIBS_core)
$(B)/mochila: $(call obj,$(call src,ctl)) $(B)/libcore.a
	$(link) $(LIBS_ctl) $(LIBS_core)
$(B)/mochila-bench: $(call obj,$(call src,bench)) $(B)/libcore.a
	$(link) $(LIBS_bench) $(LIBS_core)

# Protobuf: generated code is compiled without our warnings.
$(B)/gen/proto/%.pb-c.c $(B)/gen/proto/%.pb-c.h: proto/%.proto
	@mkdir -p $(@D)
	$(Q)protoc-c --proto_path=. --c_out=$(B)/gen $<
$(B)/gen/proto/%.pb-c.o: $(B)/gen/proto/%.pb-c.c
	$(Q)$(CC) -std=gnu11 -O1 -g -I$(B)/gen -I. $(if $(filter san,$(BUILD)),-fsanitize=address) -c -o $@ $<
$(CORE_OBJ) $(WORKER_OBJ) $(MASTER_OBJ): | $(PROTO_GEN:.c=.h)

# The built-in configuration and data files are embedded as byte arrays.
EMBED := $(B)/gen/config/embed.h
$(EMBED): $(wildcard config/*.yaml) config/embed.sh
	@mkdir -p $(@D)
	$(Q)sh config/embed.sh $(sort $(wildcard config/*.yaml)) > $@
$(call obj,$(CONFIG_SRC) $(call src,ctl master)): | $(EMBED)

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(ALL_CFLAGS) -c -o $@ $<

include tests/tests.mk
-include $(shell find $(B) -name '*.d' 2>/dev/null)

.PHONY: clean format
clean:
	rm -rf build
format:
	clang-format -i $(shell git ls-files '*.c' '*.h')

# --- the commands of the README ---
.PHONY: deps demo test bench-deps soak
deps:
	@sh tests/deps.sh
demo: deps
	@$(MAKE) --no-print-directory BUILD=release B=build/release -j2 all
	@sh bench/demo.sh build/release
test:
	@sh tests/deps.sh test
	@bash tests/run.sh
