/* How the threads of a hub hand a reader over, so that its client gets each event once and in order. `check`, beside this
   file, has spin try every order of steps. Each `#ifdef` seeds a fault that spin must find.

   An event is two bytes, so that a socket can take half of one. One thread at a time owns a reader, and a message carries the
   reader to the next thread. What a thread does with its own reader is one step, since no other thread can see parts of it. */
#define READERS 2
#define WRITERS 2                   /* `check` sets EVENTS: how many are published, in batches of one or two. */
#define KEPT    1                   /* How many events the log keeps. */
#define STALLS  1                   /* How often a client takes nothing while a thread waits for it. */
#define END(event) (2 * (event))    /* The number of bytes up to the end of an event. */
mtype = { Batch, Sweep };
chan writer[WRITERS] = [6] of { mtype, byte };    /* A FIFO channel to each writer, */
chan joins[WRITERS] = [READERS] of { byte, byte }; /* and one of joins, which does not wake it: after which batch, who. */
chan permit[WRITERS] = [1] of { bit };            /* The writer has taken the last batch. */
chan behind = [READERS] of { byte };              /* Readers that wait for a catch-up thread. */

bool locked;                        /* The log's lock, which guards `head`, `sent` and `closed`. */
byte head;                          /* The newest event in the log. */
byte sent;                          /* How many batches the writers were sent. */
bool closed;                        /* Nothing more is published, and each stream ends after the newest event. */
byte handles = READERS + 1;         /* Senders of the channels: one for each open stream, and the hub thread's. */

typedef Reader {
    byte home;                      /* The writer that it joins. */
    byte cursor;                    /* All events up to this one are sent, but for */
    byte unsent;                    /* this many bytes at the end of the last. */
    bool marked;                    /* `close` was called for it. */
    byte stalls;
    byte got;                       /* The bytes that the client has. No thread knows; the assertions do. */
    byte limit = EVENTS             /* The client may get no event after this one. */
}
Reader reader[READERS];
#define me reader[r]

inline lock()   { atomic { !locked -> locked = true } }
inline unlock() { locked = false }
/* The hub's channels are unbounded. A full one is an error here, so that no sender ever waits. */
inline post(channel, kind, value) { atomic { assert(nfull(channel)); channel!kind, value } }
inline sweep() { post(writer[0], Sweep, 0); post(writer[1], Sweep, 0) }

hidden byte taken;                  /* How many bytes the last write took. */
/* Writes the bytes from `from` to `to` to a socket, which takes `min` of them or more. */
inline write(from, to, min) {
    assert(me.got == from);
    select(taken : min .. to - from);
    me.got = from + taken;
    assert(me.got <= END(me.limit))
}
/* Writes the events after `from` up to `to`. After a partial write the position is in the first event that is not whole. */
inline write_events(from, to) {
    write(END(from), END(to), 0);
    me.cursor = (taken == END(to - from) -> to : from + taken / 2 + 1);
    me.unsent = END(me.cursor) - me.got
}

/* The hub thread: appends a batch and sends it to the writers under the lock, once each has taken the last batch. */
active proctype Hub() {
    do
    :: head < EVENTS ->
        permit[0]?_; permit[1]?_;
        lock();
        if :: head++ :: head + 2 <= EVENTS -> head = head + 2 fi;
        post(writer[0], Batch, head); post(writer[1], Batch, head); sent++;
        unlock()
    :: else -> break
    od;
    lock(); closed = true; unlock();
    sweep();
    handles--
}

/* A call of `close` for the first reader, at any moment. It takes the lock after the mark and before the sweep: a reader
   that joins later finds the mark, and a reader that joined earlier is taken before the sweep. */
active proctype Close() {
    reader[0].marked = true;
    lock(); unlock();
    sweep();
    reader[0].limit = head          /* `close` has returned: no event that is published now is sent. */
}

/* Before each message, and when it wakes by itself, a writer takes the readers that joined after the last batch that it has
   taken. A reader that joined later waits for the batches in between. */
inline take_joins() {
    do :: joins[w]?[eval(batches), _] -> joins[w]?_, r; live[r] = true :: else -> break od; r = 0
}

/* A writer: puts each batch into the sockets of its live readers. It waits for no socket and takes no lock. */
proctype Writer(byte w) {
    bool live[READERS];
    byte at, to, r, batches;        /* Each live reader has all up to `at`, or joined later. `batches` counts those taken. */
    permit[w]!0;
    do
    :: atomic { joins[w]?[eval(batches), _] -> take_joins() }
    :: atomic { writer[w]?Batch, to -> take_joins(); batches++; assert(nfull(permit[w])); permit[w]!0;
        for (r : 0 .. READERS - 1) { if
            :: live[r] -> write_events(at, to); if
                :: me.unsent > 0 -> live[r] = false;
#ifdef PARTIAL_WRITE_FORGOTTEN
                    me.unsent = 0;
#endif
                    behind!r
                :: else -> me.cursor = 0    /* A delivery does not move it: `at` is the position of all. */
                fi
            :: else fi }
        at = to; to = 0; r = 0 }
    :: atomic { writer[w]?Sweep, _ ->
#ifndef SWEEP_OVERTAKES_JOIN
        take_joins();
#endif
        for (r : 0 .. READERS - 1) { if
            :: live[r] && (me.marked || closed) -> live[r] = false; me.cursor = (at > me.cursor -> at : me.cursor); behind!r
            :: else fi }
        r = 0 }
    :: atomic { handles == 0 && empty(writer[w]) -> break }
    od
}

/* A catch-up thread: serves a reader up to the head, then sends it to its writer. A new reader starts here. */
active [2] proctype CatchUp() {
    byte r, to;
    do
    :: atomic { behind?r -> do
        :: me.unsent > 0 ->         /* The rest of an event goes first, whatever follows. */
            write(me.got, END(me.cursor), (me.stalls < STALLS -> 0 : 1));
            me.unsent = me.unsent - taken;
            if :: taken == 0 -> me.stalls++; behind!r; break :: else fi
        :: else -> lock(); if
            :: me.marked || (me.cursor == head && closed) -> unlock();    /* The stream ends. */
                assert(me.got == END(me.cursor) && (me.marked || me.cursor == EVENTS));
                handles--; break
            :: else -> if
                :: me.cursor == head -> goto join
                :: head - me.cursor > KEPT -> me.cursor = head - KEPT; unlock();
                    me.got = END(me.cursor)    /* A gap: the client is told which events are lost. */
                :: else -> to = head; unlock(); write_events(me.cursor, to); to = 0
                fi fi
        od; r = 0 }
    :: atomic { handles == 0 -> break }
    :: false -> join:               /* Still under the lock. */
#ifdef JOIN_OUTSIDE_LOCK
        unlock(); lock();
#endif
        atomic { post(joins[me.home], sent, r); unlock(); r = 0 }
    od
}

init { atomic {
    if :: reader[1].home = 0 :: reader[1].home = 1 fi;    /* The writer of the first reader, or the other. */
    behind!0; behind!1; run Writer(0); run Writer(1)
} }
