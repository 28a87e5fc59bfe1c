/* append.pml - records are appended, writers die, and who comes next mends.
 *
 * As in core/log.c, core/map.c, core/sync.c: a put takes its stripe; mends it if a dead owner had it; under the append lock it
 * rolls over if the segment is full (the spare's header, then the tail), notes its intent (address, then kind), writes a
 * reserved header at the tail (a stale first word is zeroed before) and moves the tail; then it fills the record, stores the
 * slot and clears the intent. Who takes the append lock from the dead finishes a rollover and voids intents at the tail; who mends
 * a stripe takes and gives back the append lock before it believes the intent. A sync settles every intent below its tail.
 *
 * A puts a record into stripe 0 and B one into stripe 1, each may be killed before any of its steps, also while it mends; C puts
 * into stripe 0 and D syncs: they live. A segment has two cells; B's record takes SIZE_B of them.
 *
 * What must hold: below a synced tail every record is whole or a filler; in the end the index names what the log says, stripe by
 * stripe, and holds every put that returned; nothing but whole records and fillers lies below the tail.
 *
 * Mutants: TAIL_FIRST (before the intent), NO_VOID, NO_UNDER (a mend without the append lock), NO_FINISH (of a rollover),
 * ROLL_TAIL_FIRST (before the header), NO_ZERO, NO_FILL, NO_SETTLE, RESERVED_LAST (the tail before the reserved header). */
#ifndef SIZE_B
#define SIZE_B 2
#endif
#define CELLS 2             /* of a segment */
#define SEGMENTS 5
#define SEGMENT(address) ((address) / 3)
#define FIRST(segment) ((segment) * 3)
#define OFFSET(address) ((address) % 3)
#define FILLER 8
#define RESERVED 9
#define STRIPE(id) ((id) == 2 -> 1 : 0)
#define SIZE(id) ((id) == 2 -> SIZE_B : 1)

byte append_lock, stripe_lock[2];   /* an owner's id; 0 = free */
bool append_dirty, stripe_dirty[2];
bool dead[6];
byte tail;
byte kind[15], checked[15];         /* a record's first word: its kind, and the size its check was made over */
byte size[15];                      /* the next word */
bool whole[SEGMENTS];               /* headers of segments: */
byte end[SEGMENTS];                 /* where the log leaves the one before */
byte intent_kind[2], intent_address[2];
byte slot[2];                       /* id of the record the index names */
bool returned[4];

/* Killed before this step, or it is done. */
#define STEP(what) if :: mortal -> atomic { dead[me] = true; goto gone } :: atomic { true; what } fi

inline take(lock, dirty) {
  if
  :: atomic { lock == 0 -> lock = me }
  :: atomic { (lock != 0 && dead[lock]) -> lock = me; from_dead = true }
  fi;
  if :: from_dead -> STEP(dirty = true; from_dead = false) :: else fi
}

inline append_take() {
  take(append_lock, append_dirty);
  if :: append_dirty ->
#ifndef NO_FINISH
       g = SEGMENT(tail) + 1;
       do
       :: g < SEGMENTS && whole[g] -> STEP(tail = FIRST(g)); break
       :: g < SEGMENTS && !whole[g] -> g++
       :: else -> break
       od; g = 0;
#endif
#ifndef NO_VOID
       i = 0;
       do
       :: i < 2 ->
            if :: intent_kind[i] != 0 && intent_address[i] == tail -> STEP(intent_kind[i] = 0) :: else fi;
            i++
       :: else -> break
       od; i = 0;
#endif
       STEP(append_dirty = false)
     :: else fi
}

inline stripe_take(s) {
  take(stripe_lock[s], stripe_dirty[s]);
  if :: stripe_dirty[s] ->
#ifndef NO_UNDER
       append_take();
       STEP(append_lock = 0);
#endif
       if :: intent_kind[s] != 0 ->
            STEP(at = intent_address[s]);
            if
            :: at >= tail -> skip
            :: at < tail && kind[at] == RESERVED ->
#ifdef NO_FILL
                 skip
#else
                 STEP(kind[at] = FILLER)
#endif
            :: at < tail && kind[at] == FILLER -> skip
            :: else -> STEP(assert(kind[at] != 0 && STRIPE(kind[at]) == s); slot[s] = kind[at])
            fi;
            STEP(intent_kind[s] = 0)
          :: else fi;
       STEP(stripe_dirty[s] = false); at = 0
     :: else fi
}

proctype put(byte me; bool mortal) {
  byte s, i, g, at; bool from_dead;
  s = STRIPE(me);
  stripe_take(s);
  append_take();
  do
  :: OFFSET(tail) + SIZE(me) <= CELLS -> break
  :: else ->
       g = SEGMENT(tail) + 1;
#ifdef ROLL_TAIL_FIRST
       STEP(at = tail; tail = FIRST(g));
       STEP(end[g] = at);
       STEP(whole[g] = true);
#else
       STEP(whole[g] = false); /* One that died here may have left one. */
       STEP(end[g] = tail);
       STEP(whole[g] = true);
       STEP(tail = FIRST(g));
#endif
       g = 0
  od;
  at = tail;
#ifdef TAIL_FIRST
  STEP(tail = at + SIZE(me));
#endif
  STEP(intent_address[s] = at);
  STEP(intent_kind[s] = 1);
#ifdef RESERVED_LAST
  STEP(tail = at + SIZE(me));
#endif
#ifndef NO_ZERO
  if :: kind[at] != 0 -> STEP(kind[at] = 0) :: else fi;
#endif
  STEP(size[at] = SIZE(me));
  STEP(kind[at] = RESERVED; checked[at] = SIZE(me));
#if !defined(TAIL_FIRST) && !defined(RESERVED_LAST)
  STEP(tail = at + SIZE(me));
#endif
  STEP(append_lock = 0);
  STEP(kind[at] = me; checked[at] = size[at]);
  STEP(slot[s] = me);
  STEP(intent_kind[s] = 0);
  STEP(stripe_lock[s] = 0; returned[me] = true);
gone: skip
}

/* Walks the log to `to`; what is met is whole, or a filler. */
inline walk(to) {
  x = FIRST(0); last[0] = 0; last[1] = 0;
  do
  :: x == to -> break /* The log may have gone on since. */
  :: else ->
     g = 1;
     do /* Whether a segment names this place as the end is asked first. */
     :: g < SEGMENTS && whole[g] && end[g] == x -> x = FIRST(g); break
     :: g < SEGMENTS && !(whole[g] && end[g] == x) -> g++
     :: else -> break
     od;
     if :: x == to -> break :: else fi;
     assert(x < to && kind[x] != 0 && kind[x] != RESERVED && checked[x] == size[x] && size[x] != 0);
     if :: kind[x] != FILLER -> last[STRIPE(kind[x])] = kind[x]; met[kind[x]] = true :: else fi;
     x = x + size[x]
  od; g = 0
}

proctype sync(byte me) {
  byte i, g, at, s, to, x, last[2]; bool from_dead, met[4], mortal;
  to = tail;
  do
  :: s < 2 ->
#ifndef NO_SETTLE
       if :: intent_kind[s] != 0 && intent_address[s] < to -> stripe_take(s); stripe_lock[s] = 0 :: else fi;
#endif
       s++
  :: else -> break
  od;
  atomic { walk(to); x = 0; last[0] = 0; last[1] = 0; met[1] = false; met[2] = false; met[3] = false };
gone: skip
}

init {
  byte me = 5, i, g, at, s, x, last[2]; bool from_dead, met[4], mortal;
  atomic { whole[0] = true; run put(1, true); run put(2, true); run put(3, false); run sync(4) }
  (_nr_pr == 1);
  /* Where the page cache survived, an open asks what stands at the tail: nothing, or a reservation with a right check. */
  assert(kind[tail] == 0 || (kind[tail] == RESERVED && checked[tail] == size[tail]));
  /* What they left is mended, as by the next writers. */
  do
  :: s < 2 -> stripe_take(s); stripe_lock[s] = 0; s++
  :: else -> break
  od;
  atomic { walk(tail) };
  assert(slot[0] == last[0] && slot[1] == last[1]);
  assert((!returned[1] || met[1]) && (!returned[2] || met[2]) && met[3]);
gone: skip
}
