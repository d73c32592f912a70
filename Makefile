# mochila - one non-recursive Makefile.
#
#   make            builds everything into $(B)
#   make help       the other targets
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
# Texts for people are cut on purpose where a fixed buffer is full; MUST(!"a state that exists") is an idiom.
WARN += $(if $(findstring clang,$(CC)),-Wno-string-conversion,-Wno-format-truncation)
OPT_debug   := -O1 -g -Werror
OPT_san     := -O1 -g -Werror -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
OPT_release := -O2 -g -fno-plt
# One instruction set above the baseline, as every server since 2009 has it; crc falls back at run time.
# Deaths on demand (worker/fault.h) are for tests.
FAULTS ?= $(if $(filter release,$(BUILD)),,-DMOCHILA_FAULTS)
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
WORKER_LIB_SRC := $(call src,worker/io worker/spool worker/smtp worker/lane worker/exchange \
                         worker/move) \
                  $(filter-out worker/main.c,$(call src,worker))
MASTER_LIB_SRC := $(filter-out master/main.c,$(call src,master master/move))

LIBS_core   := -lyaml -lprotobuf-c -ljansson
LIBS_worker := -luring -lcares -lidn2 -lm
LIBS_master := -lsqlite3
LIBS_api    := -lmicrohttpd -lm
LIBS_link   := -lnanomsg -lssl -lcrypto
LIBS_netd   := -lcap
LIBS_ctl    := -lcurl -lcrypto -lm
LIBS_bench  := -luring -lm

BIN := $(B)/mochilad $(B)/mochila-worker $(B)/mochila-api $(B)/mochila-link $(B)/mochila-netd \
       $(B)/mochila $(B)/mochila-bench
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
$(B)/mochila-link: $(call obj,$(call src,master/link)) $(B)/libcore.a
	$(link) $(LIBS_link) $(LIBS_core)
$(B)/mochila-netd: $(call obj,$(call src,master/netd)) $(B)/libcore.a
	$(link) $(LIBS_netd) $(LIBS_core)
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
include bench/bench.mk
-include $(shell find $(B) -type f -name '*.d' 2>/dev/null)

JOBS := $(shell nproc 2>/dev/null || echo 2)

# --- the commands of the README ---
.PHONY: help deps demo test san soak
help:
	@sed -n 's/^#: //p' $(firstword $(MAKEFILE_LIST))
#: make deps        installs what building needs (Debian 12, as root)
#: make demo        builds, runs a node with generator and sink, and counts every message
#: make demo-move   the same with two nodes, and a pool that moves there and back under load; needs root
#: make test        every ring of tests; the last line counts
#: make san         builds with ASan and UBSan, and runs the unit tests with them
#: make unit        the unit tests; also: crash-short, crash, tidy, clang-tidy
#: make fuzz        60 s for each fuzz target (FUZZ_S=60)
#: make soak        the long campaigns: 600 kills, 100,000 crash seeds, the node tests ten times
#: make bench       measures against the bars, and writes bench/results/; bench-move: the moves
#: make install     into DESTDIR and PREFIX (/usr/local); uninstall takes away the same
#: make format      clang-format over what differs from HEAD; make clean removes build/
deps:
	@sh tests/deps.sh
demo: deps
	@$(MAKE) --no-print-directory -j$(JOBS) BUILD=release B=build/release all
	@sh bench/demo.sh build/release
test:
	@sh tests/deps.sh test
	@bash tests/run.sh
san:
	@$(MAKE) --no-print-directory -k -j$(JOBS) BUILD=san B=build/san all unit

# Hours, not minutes: goes on after a failure, and tells all of them at the end.
SOAK_SEEDS ?= 100000
SOAK_ROUNDS ?= 10
soak:
	@sh tests/deps.sh test
	@CRASH_SEEDS=$(SOAK_SEEDS) SOAK_ROUNDS=$(SOAK_ROUNDS) \
	    bash tests/run.sh build soak_model soak_move soak_cluster soak_kill soak_crash soak_node

# --- installation ---
PREFIX     ?= /usr/local
SYSCONFDIR ?= /etc
BINDIR     ?= $(PREFIX)/bin
SBINDIR    ?= $(PREFIX)/sbin
# mochilad finds its children here from ../libexec/mochila, seen from its own directory.
LIBEXECDIR ?= $(PREFIX)/libexec/mochila
MANDIR     ?= $(PREFIX)/share/man
DOCDIR     ?= $(PREFIX)/share/doc/mochila
UNITDIR    ?= $(PREFIX)/lib/systemd/system
SYSUSERSDIR ?= $(PREFIX)/lib/sysusers.d
INSTALL    ?= install
REL := build/release
# Everything that mochilad starts.
CHILDREN := $(filter-out mochilad mochila mochila-bench,$(notdir $(BIN)))
PAGES := mochilad.8 mochila.1 mochila-bench.1 mochila.yaml.5
page_path = $(MANDIR)/man$(patsubst .%,%,$(suffix $(1)))/$(1)

.PHONY: install uninstall
install:
	@$(MAKE) --no-print-directory -j$(JOBS) BUILD=release B=$(REL) all
	$(INSTALL) -D -m 755 $(REL)/mochilad $(DESTDIR)$(SBINDIR)/mochilad
	$(INSTALL) -D -m 755 -t $(DESTDIR)$(LIBEXECDIR) $(addprefix $(REL)/,$(CHILDREN))
	$(INSTALL) -D -m 755 $(REL)/mochila $(DESTDIR)$(BINDIR)/mochila
	$(INSTALL) -D -m 755 $(REL)/mochila-bench $(DESTDIR)$(BINDIR)/mochila-bench
	$(foreach p,$(PAGES),$(INSTALL) -D -m 644 docs/man/$(p) $(DESTDIR)$(call page_path,$(p)) &&) true
	$(INSTALL) -D -m 644 -t $(DESTDIR)$(DOCDIR) README.md LICENSE docs/ARCHITECTURE.md config/mochila.yaml \
	    config/default.yaml
	$(INSTALL) -d $(DESTDIR)$(UNITDIR)
	sed 's,/usr/sbin/mochilad,$(SBINDIR)/mochilad,' config/mochila.service >$(DESTDIR)$(UNITDIR)/mochila.service
	$(INSTALL) -D -m 644 config/mochila.sysusers $(DESTDIR)$(SYSUSERSDIR)/mochila.conf
	[ -e $(DESTDIR)$(SYSCONFDIR)/mochila/mochila.yaml ] || \
	    $(INSTALL) -D -m 644 config/mochila.yaml $(DESTDIR)$(SYSCONFDIR)/mochila/mochila.yaml
	@echo "installed; next: systemd-sysusers (or: useradd --system mochila), edit" \
	    "$(SYSCONFDIR)/mochila/mochila.yaml, mochila check, systemctl enable --now mochila"
# The configuration, the spool and the account stay.
uninstall:
	rm -f $(addprefix $(DESTDIR),$(SBINDIR)/mochilad $(BINDIR)/mochila $(BINDIR)/mochila-bench \
	    $(foreach p,$(PAGES),$(call page_path,$(p))) $(UNITDIR)/mochila.service $(SYSUSERSDIR)/mochila.conf)
	rm -rf $(DESTDIR)$(LIBEXECDIR) $(DESTDIR)$(DOCDIR)

.PHONY: clean format
clean:
	rm -rf build
# Only what was changed since the last commit: tables that are aligned by hand stay.
format:
	@command -v git-clang-format >/dev/null || { echo "format: needs the package clang-format" >&2; exit 1; }
	git clang-format --extensions c,h HEAD
