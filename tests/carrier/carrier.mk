# A worker's end of a carrier, alone: tests/node/test_link_carrier.py measures with it.
CARRIER_RATE_OBJ := $(call obj,tests/carrier/carrier_rate.c worker/carrier.c $(call src,worker/io))
$(B)/tests/carrier_rate: $(CARRIER_RATE_OBJ) $(B)/libproto.a
	$(link) $(LIBS_worker) $(LIBS_core)
# Node tests find it where the unit tests were built.
unit: $(B)/tests/carrier_rate
$(CARRIER_RATE_OBJ): | $(PROTO_GEN:.c=.h)
