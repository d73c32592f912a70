"""Control frames (proto/control.proto), written by hand: an encoder and decoder independent of the C code."""

START, HOLDS, PEER_UP, PEER_DOWN, DRAIN, QUERY = 2, 3, 4, 5, 6, 8
READY, DRAINED, ANSWER, RECOVERED = 1, 7, 9, 10
NAMES = {1: "READY", 2: "START", 3: "HOLDS", 4: "PEER_UP", 5: "PEER_DOWN", 6: "DRAIN",
         7: "DRAINED", 8: "QUERY", 9: "ANSWER", 10: "RECOVERED"}


def varint(n):
    out = b""
    while True:
        low, n = n & 127, n >> 7
        if n == 0:
            return out + bytes([low])
        out += bytes([low | 128])


def number(field, value):
    return varint(field << 3) + varint(value)


def data(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def frame(kind, *parts):
    return data(kind, b"".join(parts))


def read_varint(b, i):
    n = shift = 0
    while True:
        n |= (b[i] & 127) << shift
        shift += 7
        i += 1
        if b[i - 1] < 128:
            return n, i


def fields(b):
    """{field: [values]} of one message; sub-messages stay bytes."""
    out, i = {}, 0
    while i < len(b):
        key, i = read_varint(b, i)
        if key & 7 == 0:
            value, i = read_varint(b, i)
        elif key & 7 == 2:
            n, i = read_varint(b, i)
            value, i = b[i:i + n], i + n
        else:
            raise ValueError(f"wire type {key & 7}")
        out.setdefault(key >> 3, []).append(value)
    return out


def decode(b):
    """(kind, fields) of a frame with exactly one message."""
    (kind, [message]), = fields(b).items()
    return kind, fields(message)


def ready(pid, generation, version=1):
    return frame(READY, number(1, pid), number(2, generation), number(3, version))


def recovered(messages=0):
    return frame(RECOVERED, number(1, messages), number(2, 1), number(3, 0))


def answer(query_id, body, last=True, status=200):
    return frame(ANSWER, number(1, query_id), number(2, int(last)), data(3, body),
                 number(4, status))


def query(query_id, verb, *args):
    return frame(QUERY, number(1, query_id), data(2, verb.encode()),
                 *[data(3, a.encode()) for a in args])
