/*
 * limits - every bound of the program, with their relations checked by the compiler.
 *
 * What an operator may set is bounded here as well; config/ takes minimum and maximum from this
 * file.
 */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

#include <assert.h>

/* SMTP lines and addresses (RFC 5321 4.5.3.1 and the growth by extensions). */
enum {
    LIMIT_COMMAND_LINE_BYTES = 4096,  /* one command line with CRLF */
    LIMIT_REPLY_LINE_BYTES = 512,     /* one line that we send, with CRLF */
    LIMIT_REMOTE_LINE_BYTES = 4096,   /* one reply line that we accept */
    LIMIT_REMOTE_REPLY_LINES = 100,   /* lines of one remote reply */
    LIMIT_REMOTE_REPLY_BYTES = 65536, /* bytes of one remote reply */
    LIMIT_REPLY_KEPT_BYTES = 1000,    /* of a remote reply kept in the log */
    LIMIT_EHLO_LINES = 64,
    LIMIT_LOCAL_PART_BYTES = 64,
    LIMIT_DOMAIN_BYTES = 255,
    LIMIT_ADDRESS_BYTES = 320,        /* local part @ domain */
    LIMIT_TEXT_LINE_BYTES = 1 << 20,  /* a line of a message that we accept */
    LIMIT_HEADER_BYTES = 256 << 10,
    LIMIT_HEADER_FIELDS = 1000,
    LIMIT_RECEIVED_FIELDS = 100,
    LIMIT_TRACE_BYTES = 1400,         /* our own Received field */
};

/* Messages and transactions. */
enum {
    LIMIT_RECIPIENTS = 10000,         /* of one transaction, highest setting */
    LIMIT_RECIPIENTS_PRESET = 1000,
    LIMIT_BODY_CHUNK_BYTES = 256 << 10, /* a larger body goes to the log in pieces of this size */
    LIMIT_BODY_CHUNKS = 512,
    LIMIT_NAME_BYTES = 32,            /* node, pool, tenant names: 1..32 of a-z0-9- */
};

/* Places. */
enum {
    LIMIT_WORKERS = 64,
    LIMIT_LANES = 4096,
    LIMIT_POOLS = 1024,
    LIMIT_TENANTS = 16384,
    LIMIT_LISTENERS = 64,
    LIMIT_ROUTES = 4096,
    LIMIT_NETS = 1024,
    LIMIT_HOLDS = 1024,
    LIMIT_MX_HOSTS = 30, /* of one answer that we read */
    LIMIT_POISON = 1024, /* messages parked because they killed a worker */
    LIMIT_MX_TRIED = 5,  /* hosts of one attempt (RFC 5321 5.1: at least two addresses) */
    LIMIT_ADDRESSES_TRIED = 10,
};

/* Spool. */
enum {
    LIMIT_BLOCK_BYTES = 4096,
    LIMIT_BATCH_BYTES = 1 << 20, /* one commit */
    LIMIT_SEGMENT_BYTES_MIN = 4 << 20,
    LIMIT_SEGMENT_BYTES_PRESET = 64 << 20,
    LIMIT_SEGMENT_BYTES_MAX = 256 << 20,
    LIMIT_RECORD_BYTES = 512 << 10, /* one record; ENQ with the envelope of many recipients fits */
    LIMIT_FRAME_BYTES = 64 << 10,   /* one control frame, master <-> child */
    LIMIT_QUERY_ARGS = 32,
    LIMIT_DRAIN_S = 7 * 86400,
    EXCHANGE_RING_BYTES = 8 << 20,  /* one direction between two workers, with its header */
};

/* Between nodes. */
enum {
    LIMIT_PEERS = 32,
    LIMIT_EPOCH = 1 << 30, /* no lane changes its owner so often: more is refused */
    LIMIT_LINK_FRAME_BYTES = 1 << 20,   /* one frame, encoded */
    LIMIT_LINK_MESSAGE_BYTES = 2 << 20, /* NN_RCVMAXSIZE: finite, or a length field ends us */
    LIMIT_LINK_CREDIT_BYTES = 16 << 20, /* unacknowledged bytes of one channel of one peer */
    LIMIT_LINK_PAYLOAD_BYTES = 60 << 10, /* of one frame, as it comes from the master */
    LIMIT_CARRIER_PAYLOAD_BYTES = 640 << 10, /* of one frame between workers of two nodes */
};

static_assert(LIMIT_LINK_PAYLOAD_BYTES + 2048 <= LIMIT_FRAME_BYTES, "a payload fits fd 3");
static_assert(LIMIT_LINK_FRAME_BYTES < LIMIT_LINK_MESSAGE_BYTES, "a frame fits a message");
static_assert(LIMIT_CARRIER_PAYLOAD_BYTES + 4096 <= LIMIT_LINK_FRAME_BYTES, "and this too");
static_assert(LIMIT_RECORD_BYTES + 65536 <= LIMIT_CARRIER_PAYLOAD_BYTES, "a record fits a carrier");
static_assert(LIMIT_BODY_CHUNK_BYTES + 4096 <= LIMIT_RECORD_BYTES, "a chunk fits a record");
static_assert(2 * LIMIT_RECORD_BYTES <= LIMIT_BATCH_BYTES, "two records fit a batch");
static_assert(LIMIT_BATCH_BYTES % LIMIT_BLOCK_BYTES == 0, "a batch is whole blocks");
static_assert(LIMIT_SEGMENT_BYTES_MIN >= 4 * LIMIT_BATCH_BYTES, "a segment holds batches");
static_assert(LIMIT_TRACE_BYTES + 0 < LIMIT_BLOCK_BYTES + 0, "the trace field fits a block");

#endif
