/*
 * lane_move - the planned move of one lane from node A to node B, for the SPIN model checker.
 *
 * Change this first, then the code. tests/model/run.sh checks it; -DBUGn breaks one rule each, and the
 * checker must find a trace for every one of them.
 *
 * What is here: the durable journals of both nodes; the owner's record (static arbiter: it is part of A's
 * journal, and the move is a request to A; with -DARBITER an external record that both can swap); crashes of
 * A and B between any two steps, with the loss of everything volatile and of messages under way; mail that
 * arrives on A at any moment, also after the move (strays); temporary SMTP failures; attempts that are open
 * while the lane moves (the tail); A giving up (abort) at any time after freezing; on which host the address
 * is; the compaction of B's journal; with -DPRECOPY the copying before the freeze.
 * What is not: bodies, more than two nodes, disks that lie about fdatasync, the link's own sequence (its
 * channels lose everything in a crash and nothing otherwise).
 *
 * Rules
 *  R1  A starts an attempt only as owner and not frozen.
 *  R2  After the durable FROZEN(e) A resumes only by winning a compare-and-swap to epoch e+1.
 *  R3  B stores the complete DELTA(e) durably before it asks for (A,e) -> (B,e+1).
 *  R4  B does not touch a tail delivery until A reports its outcome.
 *  R5  Every node repeats what its journal says until it is acknowledged; all is idempotent by message id.
 *  R6  The intent to send the final dot is durable before the dot is sent.
 *  R7  A forgets a delivery only after B has acknowledged it.
 *  R8  A takes the address off its interface before the swap; B puts it on after the swap.
 *  R9  An attempt starts only where the address is: whoever resumes acquires it again first.
 *  R10 What B was handed and has finished stays known to it, until A has said, behind everything that it sent
 *      before, that it has the delivery no more: a report that is repeated is recognised.
 *  R11 A record counts as copied when B has acknowledged it by position: one that changed since is sent again.
 * Properties
 *  P1  never two nodes that may start attempts
 *  P2  no accepted message is lost (checked whenever nothing more can happen)
 *  P3  deliveries of m <= 1 + attempts of m whose outcome was lost in a crash
 *  P4  the move or the abort ends: when nothing more can happen, one owner is active and B has the lane
 *  P5  never two hosts that answer for the address (static arbiter: the swap needs A; with an external record
 *      and a dead A only the lifetime of its address ends that)
 *  P6  no attempt from a host that does not have the address
 */
#define N 2             /* deliveries */
#ifndef CRASHES
#define CRASHES 2
#endif
#ifndef ABORTS
#define ABORTS 1
#endif
#ifndef FAILS
#define FAILS 1
#endif

mtype = { NONE, Q, DOT, DONE, TAIL, GONE };             /* of a delivery, in a journal */
mtype = { COMMITREQ, COMMITTED, NACK, TAKEN, ACK };     /* messages */

/* Durable: the owner's record, both journals. */
bool rec_b = false;             /* the record names B */
byte rec_epoch = 1;
mtype aj[N] = NONE, bj[N] = NONE;
byte a_frozen = 0;              /* epoch in which A froze the lane, 0: it has not */
byte b_ready = 0, b_owner = 0;  /* epochs */

/* In the kernels: outlives the programs there. */
bool a_addr = true, b_addr = false;

/* Volatile. *_inf: the delivery of the open attempt; *_sent: 1 the remote has accepted, 2 refused for now. */
bool a_up = true, b_up = true, a_act = true, b_act = false, a_told = false;
byte a_inf = N, b_inf = N, a_sent = 0, b_sent = 0;

/* The world, and what only an observer knows. */
byte delivered[N] = 0, amb[N] = 0, arrived = 0, crashes = 0, aborts = 0, fails = 0;

chan delta = [1] of { byte, mtype, mtype };             /* epoch, state of 0 and of 1 */
chan report = [1] of { byte, mtype };                   /* A -> B: outcome of a tail, or mail for the lane */
chan a2b = [1] of { mtype, byte };
chan b2a = [1] of { mtype, byte };

#ifdef PRECOPY
/* dirty: B is not known to have it as it is; copying: sent and unchanged since, not yet acknowledged. */
bool dirty[N] = true;
byte copying = N;
mtype rj[N] = NONE;                                     /* B's replica, durable */
chan copy = [1] of { byte, mtype };
chan copied = [1] of { byte };
#ifdef BUG10
#define CHANGED(m) dirty[m] = true
#else
#define CHANGED(m) dirty[m] = true; if :: copying == m -> copying = N :: else -> skip fi
#endif
#define SET_A(m, s) aj[m] = s; CHANGED(m)
#else
#define SET_A(m, s) aj[m] = s
#endif

/* P1 */
#define ONE_ACTIVE assert(!(a_up && a_act && a_frozen == 0 && b_up && b_act))
/* P5 */
#ifdef ARBITER
#define ONE_ADDRESS skip
#else
#define ONE_ADDRESS assert(!(a_addr && b_addr))
#endif

#ifdef BUG1
#define NOT_FROZEN true
#else
#define NOT_FROZEN (a_frozen == 0)
#endif
#ifdef BUG4
#define B_MAY(s) (s == Q || s == TAIL)
#else
#define B_MAY(s) (s == Q)
#endif
#ifdef BUG5
#define A_STATE(m) (a_inf == m -> Q : aj[m])
#else
#define A_STATE(m) (a_inf == m -> TAIL : aj[m])
#endif
#ifdef PRECOPY
/* Only what B is not known to have. The open attempt is part of the TAIL list, not of the log. */
#define A_DELTA(m) ((dirty[m] || a_inf == m) -> A_STATE(m) : GONE)
#define B_TAKES(m, s) (s == GONE -> rj[m] : s)
#else
#define A_DELTA(m) A_STATE(m)
#define B_TAKES(m, s) s
#endif
#ifdef ARBITER
#define B_ACCEPTS (b_owner == 0 && !rec_b && e >= b_ready)      /* B reads the record first */
#else
#define B_ACCEPTS (b_owner == 0 && e >= b_ready)
#endif
#ifdef BUG7
#define MAY_GIVE true
#else
#define MAY_GIVE (!a_addr || a_frozen == 0 || a_frozen != rec_epoch || !b2a?[COMMITREQ, eval(a_frozen)])
#endif
#define A_OWES(m) (aj[m] != NONE && aj[m] != GONE && a_inf != m)
/* B asks about what it knows as handed over or as a tail; A's answer. */
#ifdef BUG12
#define A_FORGOT(m, b) ((b == GONE || b == TAIL) && a_inf != m)
#else
#define A_FORGOT(m, b) ((b == GONE || b == TAIL) && (aj[m] == GONE || aj[m] == DONE) && a_inf != m)
#endif
#define FINISHED (arrived == N && delivered[0] >= 1 && delivered[1] >= 1 && a_up && b_up && b_act && rec_b && \
	b_addr && !a_addr)

inline drain_to_a() { do :: nempty(b2a) -> b2a?_,_ :: empty(b2a) -> break od }
inline drain_to_b()
{
	do :: nempty(a2b) -> a2b?_,_ :: empty(a2b) -> break od;
	do :: nempty(delta) -> delta?_,_,_ :: empty(delta) -> break od;
	do :: nempty(report) -> report?_,_ :: empty(report) -> break od
}
#ifdef PRECOPY
inline drain_copies()
{
	do :: nempty(copy) -> copy?_,_ :: empty(copy) -> break od;
	do :: nempty(copied) -> copied?_ :: empty(copied) -> break od;
	copying = N
}
#else
inline drain_copies() { skip }
#endif
/* R2, R9: A has won the swap and goes on: the address first. */
inline a_resumes()
{
	a_frozen = 0;
#ifndef BUG8
	a_addr = true; ONE_ADDRESS;
#endif
	a_act = true
}

proctype A()
{
	byte m, e;
	do
	/* Mail arrives: durable before the 250, whoever owns the lane. */
	:: atomic { a_up && arrived < N -> SET_A(arrived, Q); arrived++ }
	/* An attempt: R1, R6. */
	:: atomic { a_up && a_act && a_inf == N && NOT_FROZEN && (aj[0] == Q || aj[1] == Q) ->
		ONE_ACTIVE; assert(a_addr);                     /* P1, P6 */
		if :: aj[0] == Q -> m = 0 :: aj[1] == Q -> m = 1 fi;
		SET_A(m, DOT); a_inf = m }
	:: atomic { a_up && a_inf < N && a_sent == 0 ->
		if
		:: delivered[a_inf]++; assert(delivered[a_inf] <= 1 + amb[a_inf]); a_sent = 1  /* P3 */
		:: fails < FAILS -> fails++; a_sent = 2
		fi }
	:: atomic { a_up && a_inf < N && a_sent > 0 ->
		if :: a_sent == 1 -> SET_A(a_inf, DONE) :: a_sent == 2 -> SET_A(a_inf, Q) fi;
		a_inf = N; a_sent = 0 }
#ifdef PRECOPY
	/* Copying while delivering: R11. */
	:: atomic { a_up && a_act && a_frozen == 0 && empty(copy) && empty(copied) && (dirty[0] || dirty[1]) ->
		if :: dirty[0] -> m = 0 :: dirty[1] -> m = 1 fi;
		copying = m; copy!m(aj[m]) }
	:: atomic { a_up && nempty(copied) -> copied?m;
		if :: copying == m -> dirty[m] = false; copying = N :: else -> skip fi }
#endif
	/* The operator's move: freeze, then the rest of the log until B has it. */
	:: atomic { a_up && a_act && a_frozen == 0 && !rec_b -> a_frozen = rec_epoch }
	:: atomic { a_up && a_frozen != 0 && a_frozen == rec_epoch && !rec_b && b_ready != a_frozen && empty(delta) ->
		delta!a_frozen(A_DELTA(0), A_DELTA(1)) }
	/* Giving up: R2. */
	:: atomic { a_up && a_act && a_frozen != 0 && aborts < ABORTS -> aborts++;
#ifdef BUG2
		a_resumes()
#else
		if :: !rec_b && rec_epoch == a_frozen -> rec_epoch++; a_resumes() :: else -> skip fi
#endif
		}
#ifdef ARBITER
	/* B has all of it (DELTA_ACK): the address leaves, the connections stay (R8). */
	:: atomic { a_up && a_addr && a_frozen != 0 && a_frozen == b_ready -> a_addr = false }
	:: atomic { a_up && a_addr && rec_b -> a_addr = false }
#else
	/* DELTA_ACK and the wish for the swap are one message: it waits until the address has left (R8). */
	:: atomic { a_up && a_addr && !rec_b && a_frozen != 0 && a_frozen == rec_epoch &&
		b2a?[COMMITREQ, eval(a_frozen)] -> a_addr = false }
	/* GIVEN in A's journal is the swap. */
	:: atomic { a_up && (b2a?[COMMITREQ, _] && empty(a2b) && MAY_GIVE) -> b2a?COMMITREQ(e);
		if
		:: !rec_b && a_frozen == e && rec_epoch == e ->
			rec_b = true; rec_epoch++; a_told = true; a_act = false; a2b!COMMITTED(rec_epoch)
		:: rec_b -> a2b!COMMITTED(rec_epoch)
		:: else -> a2b!NACK(e)
		fi }
#endif
	:: atomic { a_up && b2a?[TAKEN, _] -> b2a?TAKEN(e); a_act = false; a_told = true }
	/* Ex-owner: outcomes of tails and stray mail, until B has them (R5, R7). */
	:: atomic { a_up && rec_b && a_told && empty(report) && empty(b2a) && (A_OWES(0) || A_OWES(1)) ->
		if :: A_OWES(0) -> m = 0 :: A_OWES(1) -> m = 1 fi;
		report!m(aj[m])
#ifdef BUG6
		; aj[m] = GONE
#endif
		}
	/* Asked whether it still has a delivery (R10): what has a fate in the journal it has not. */
	:: atomic { a_up && rec_b && a_told && b_up && empty(report) && (A_FORGOT(0, bj[0]) || A_FORGOT(1, bj[1])) ->
		if :: A_FORGOT(0, bj[0]) -> m = 0 :: A_FORGOT(1, bj[1]) -> m = 1 fi;
		report!m(GONE) }
	:: atomic { a_up && b2a?[ACK, _] -> b2a?ACK(m); if :: a_inf != m -> aj[m] = GONE :: else -> skip fi }
	/* Crash: the address stays in the kernel for its lifetime. */
	:: atomic { a_up && crashes < CRASHES -> crashes++; a_up = false; a_act = false; a_told = false;
		if :: a_sent == 1 -> amb[a_inf]++ :: else -> skip fi;   /* the world knows, we do not */
		a_inf = N; a_sent = 0; drain_to_a(); drain_copies() }
	/* Restart: netd first drops what is not owned; DOT without DONE is ambiguous, and tried again. */
	:: atomic { !a_up -> a_up = true;
		if :: aj[0] == DOT -> SET_A(0, Q) :: else -> skip fi;
		if :: aj[1] == DOT -> SET_A(1, Q) :: else -> skip fi;
		if
		:: !rec_b && a_frozen == rec_epoch ->
#ifndef BUG3
			rec_epoch++;                            /* R2 also after a crash */
#endif
			a_resumes()
		:: !rec_b && a_frozen != rec_epoch -> a_resumes()
		:: rec_b -> a_told = true; a_addr = false
		fi }
	:: timeout -> assert(FINISHED); break                   /* P2, P4 */
	od
}

proctype B()
{
	byte m, e;
	mtype s0, s1, t;
	do
#ifdef PRECOPY
	:: atomic { b_up && nempty(copy) && empty(copied) -> copy?m(t);
		if :: b_owner == 0 -> rj[m] = t; copied!m :: else -> skip fi }
#endif
	:: atomic { b_up && nempty(delta) -> delta?e(s0, s1);
		if :: B_ACCEPTS -> bj[0] = B_TAKES(0, s0); bj[1] = B_TAKES(1, s1); b_ready = e  /* R3 */
		   :: else -> skip fi }
#ifdef ARBITER
	:: atomic { b_up && b_ready != 0 && b_owner == 0 && !rec_b ->           /* compare and swap */
		if :: rec_epoch == b_ready -> rec_b = true; rec_epoch++
		   :: rec_epoch != b_ready -> b_ready = 0 fi }
	:: atomic { b_up && rec_b && b_owner == 0 -> b_owner = rec_epoch; b_addr = true; b_act = true; ONE_ACTIVE }
	:: b_up && b_act && !a_told && empty(b2a) -> b2a!TAKEN(b_owner)
#else
	:: atomic { b_up && b_ready != 0 && b_owner == 0 && empty(b2a) && empty(a2b) -> b2a!COMMITREQ(b_ready)
#ifdef BUG9
		; b_addr = true; ONE_ADDRESS                    /* R8 broken: before the swap */
#endif
		}
	:: atomic { b_up && a2b?[COMMITTED, _] -> a2b?COMMITTED(e);
		if :: b_owner == 0 && e == b_ready + 1 -> b_owner = e; b_addr = true; b_act = true; ONE_ACTIVE; ONE_ADDRESS
		   :: else -> skip fi }
	:: atomic { b_up && a2b?[NACK, _] -> a2b?NACK(e);
		if :: b_owner == 0 && e == b_ready -> b_ready = 0 :: else -> skip fi }
#endif
	/* Outcomes of tails, stray mail (R5). */
	:: atomic { b_up && b_owner != 0 && nempty(report) && empty(b2a) -> report?m(t);
		if
		:: t == GONE && bj[m] == TAIL -> bj[m] = DONE   /* the attempt ended with a fate, the report was lost */
		:: t == GONE && bj[m] == GONE -> bj[m] = NONE   /* nothing will come again: forgotten */
		:: t != GONE && (bj[m] == TAIL || bj[m] == NONE) ->
			if :: t == DONE -> bj[m] = DONE :: t != DONE -> bj[m] = Q fi
		:: else -> skip
		fi;
		if :: t != GONE -> b2a!ACK(m) :: else -> skip fi }
	/* Compaction: what is finished leaves the journal, its id stays (R10). */
	:: atomic { b_up && b_act && (bj[0] == DONE || bj[1] == DONE) ->
		if :: bj[0] == DONE -> m = 0 :: bj[1] == DONE -> m = 1 fi;
#ifdef BUG11
		bj[m] = NONE
#else
		bj[m] = GONE
#endif
		}
	/* An attempt: R4, R6. */
	:: atomic { b_up && b_act && b_inf == N && (B_MAY(bj[0]) || B_MAY(bj[1])) ->
		ONE_ACTIVE; assert(b_addr);
		if :: B_MAY(bj[0]) -> m = 0 :: B_MAY(bj[1]) -> m = 1 fi;
		bj[m] = DOT; b_inf = m }
	:: atomic { b_up && b_inf < N && b_sent == 0 ->
		if
		:: delivered[b_inf]++; assert(delivered[b_inf] <= 1 + amb[b_inf]); b_sent = 1
		:: fails < FAILS -> fails++; b_sent = 2
		fi }
	:: atomic { b_up && b_inf < N && b_sent > 0 ->
		if :: b_sent == 1 -> bj[b_inf] = DONE :: b_sent == 2 -> bj[b_inf] = Q fi;
		b_inf = N; b_sent = 0 }
	/* Crash, restart. */
	:: atomic { b_up && crashes < CRASHES -> crashes++; b_up = false; b_act = false;
		if :: b_sent == 1 -> amb[b_inf]++ :: else -> skip fi;
		b_inf = N; b_sent = 0; drain_to_b(); drain_copies() }
	:: atomic { !b_up -> b_up = true;
		if :: bj[0] == DOT -> bj[0] = Q :: else -> skip fi;
		if :: bj[1] == DOT -> bj[1] = Q :: else -> skip fi;
		if :: b_owner != 0 -> b_addr = true; b_act = true :: else -> b_addr = false fi }
	:: timeout -> assert(FINISHED); break
	od
}

init { atomic { run A(); run B() } }
