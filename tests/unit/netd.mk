# Unit tests of netd link its objects, all but its main.
NETD_TEST_OBJ := $(call obj,$(filter-out master/netd/main.c,$(call src,master/netd)))
$(filter $(B)/tests/unit/test_netd_%,$(UNIT_BIN)): $(NETD_TEST_OBJ)
$(filter $(B)/tests/unit/test_netd_%,$(UNIT_BIN)): LIBS_room += $(LIBS_netd)
