/* lookup.pml - a lookup that takes no lock, against the one writer that owns the stripe.
 *
 * As in core/index.c and core/reader.c: the reader loads root, directory word, and of a line of slots first those that have the
 * tag, then each of these again, then whether one is empty; and in the end compares `recycled` with what it last saw. The writer
 * puts, removes (a slot becomes empty if its right neighbour is, and so do the tombstones left of it), cleans and splits chunks
 * into the stripe's spares, doubles the directory and clears in place. Keys: K, which is looked up; M, which has K's tag and
 * stays with it in a split; L, which goes to the other side.
 *
 * What must hold: the value a lookup returns (0: absent) was K's at some moment of the call.
 *
 * Mutants: NO_RECYCLED, LATE_RECYCLED (after the chunk was overwritten), ALWAYS_EMPTY (a removed slot), FIRST_TOMBSTONE (is taken
 * without looking further), IN_PLACE (a cleaning moves slots within the chunk). Bounds: WRITES writes against two lookups, chunks of two lines of two slots. */
#ifndef WRITES
#define WRITES 4
#endif
#define LINE 2
#define SLOTS 4
#define CHUNKS 4
#define EMPTY 0
#define TOMBSTONE 1
#define OTHER 2             /* L */
#define TWIN 3              /* M */
#define KEY 4               /* KEY + v: K with the value v */
#define HAS_TAG(s) ((s) == TWIN || (s) > KEY)
#define HOME 1              /* of K and M; L's is 3 */

byte slot[CHUNKS * SLOTS];
byte word[3];               /* word[0]: the directory of depth 0; word[1], word[2]: that of depth 1 */
byte root;                  /* which of the two */
byte recycled;
byte spare[2] = { 255, 255 };
byte fresh = 1;             /* the next chunk that was never used */
bool published[CHUNKS];

byte value, next_value = 1; /* K's, for the oracle */
byte seen;                  /* values K had since the lookup began, a bit each */
bool looking;

inline becomes(v) { value = v; if :: looking -> seen = seen | (1 << v) :: else fi }

/* where: the slot of a key, or 255; place: where it would go */
inline find(c, home, is_it) {
  d_step {
    where = 255; place = 255; i = 0;
    do
    :: i == SLOTS -> break
    :: i < SLOTS ->
         s = slot[c * SLOTS + (home + i) % SLOTS];
         if
         :: s == EMPTY -> if :: place == 255 -> place = c * SLOTS + (home + i) % SLOTS :: else fi; break
         :: s == TOMBSTONE ->
              if :: place == 255 -> place = c * SLOTS + (home + i) % SLOTS :: else fi;
#ifdef FIRST_TOMBSTONE
              break
#else
              i++
#endif
         :: s != EMPTY && s != TOMBSTONE && (is_it) -> where = c * SLOTS + (home + i) % SLOTS; break
         :: else -> i++
         fi
    od;
    /* one slot of a chunk stays empty */
    if :: place != 255 && slot[place] == EMPTY ->
         i = 0; s = 0;
         do :: i == SLOTS -> break :: i < SLOTS -> if :: slot[c * SLOTS + i] == EMPTY -> s++ :: else fi; i++ od;
         if :: s < 2 -> place = 255 :: else fi
       :: else fi;
    i = 0; s = 0
  }
}

inline put(c, home, is_it, new) {
  find(c, home, is_it);
  if :: where == 255 -> where = place :: else fi;
  if :: where == 255 -> skip
     :: where != 255 && new > KEY -> atomic { slot[where] = new; becomes(new - KEY) }
     :: else -> slot[where] = new
  fi
}

inline take_away(c, home, is_it) {
  find(c, home, is_it);
  if :: where == 255 -> skip
     :: else ->
#ifdef ALWAYS_EMPTY
          s = EMPTY;
#else
          if :: slot[c * SLOTS + (where + 1) % SLOTS] == EMPTY -> s = EMPTY :: else -> s = TOMBSTONE fi;
#endif
          atomic { if :: slot[where] > KEY -> becomes(0) :: else fi; slot[where] = s };
          do
          :: s == EMPTY && slot[c * SLOTS + (where + SLOTS - 1) % SLOTS] == TOMBSTONE ->
               where = c * SLOTS + (where + SLOTS - 1) % SLOTS; slot[where] = EMPTY
          :: else -> break
          od; s = 0
  fi
}

/* An empty spare chunk; 255 if there is none. */
inline prepare(n, c) {
  if :: spare[n] == 255 && fresh < CHUNKS -> spare[n] = fresh; fresh++ :: else fi;
  c = spare[n];
  if :: c != 255 ->
#if !defined(NO_RECYCLED) && !defined(LATE_RECYCLED)
       if :: published[c] -> recycled++ :: else fi;
#endif
       i = 0;
       do :: i < SLOTS -> slot[c * SLOTS + i] = EMPTY; i++ :: else -> break od; i = 0;
#ifdef LATE_RECYCLED
       if :: published[c] -> recycled++ :: else fi;
#endif
     :: else fi
}

/* Live slots of one side, or of both, to where their probes find them. */
inline copy_live(from, to, side) {
  i = 0;
  do
  :: i < SLOTS ->
       s = slot[from * SLOTS + i];
       if
       :: s > TOMBSTONE && (side == 2 || (side == 1) == (s == OTHER)) ->
            place = (s == OTHER -> 3 : HOME);
            do :: slot[to * SLOTS + place] == EMPTY -> break :: else -> place = (place + 1) % SLOTS od;
            slot[to * SLOTS + place] = s
       :: else fi;
       i++
  :: else -> break
  od; i = 0; s = 0
}

proctype writer() {
  byte writes, where, place, i, s, a, b, old, c, other;
  do
  :: writes == WRITES -> break
  :: writes < WRITES -> writes++;
       d_step { c = (root == 0 -> word[0] : word[1]); other = (root == 0 -> word[0] : word[2]) };
       if
       :: put(c, HOME, s > KEY, KEY + next_value); next_value++
       :: take_away(c, HOME, s > KEY)
       :: put(c, HOME, s == TWIN, TWIN)
       :: take_away(c, HOME, s == TWIN)
       :: put(other, 3, s == OTHER, OTHER)
       :: take_away(other, 3, s == OTHER)
       :: root == 0 -> word[1] = word[0]; word[2] = word[0]; root = 1
       :: root == 1 && word[1] == word[2] -> /* split */
            prepare(0, a); prepare(1, b);
            if :: a != 255 && b != 255 ->
                 old = word[1];
                 copy_live(old, a, 0); copy_live(old, b, 1);
                 published[a] = true; published[b] = true;
                 word[1] = a; word[2] = b;
                 spare[0] = old; spare[1] = 255
               :: else fi
       :: atomic { (root == 0 || word[1] != word[2]) -> skip }; /* clean */
#ifdef IN_PLACE
            find(c, HOME, s > KEY);
            if :: where != 255 && place != 255 && place != where ->
                 s = slot[where]; slot[where] = TOMBSTONE; slot[place] = s; s = 0
               :: else fi
#else
            prepare(0, a);
            if :: a != 255 ->
                 old = c;
                 copy_live(old, a, (root == 0 -> 2 : 0));
                 published[a] = true;
                 if :: root == 0 -> word[0] = a :: else -> word[1] = a fi;
                 spare[0] = old
               :: else fi
#endif
       :: true -> /* clear: in place, every chunk that is named. A key is gone once its probe does not reach it any more */
            find(c, HOME, s > KEY);
            a = (where == 255 -> 255 : (where + SLOTS - HOME) % SLOTS);
            i = 0;
            do
            :: i < SLOTS ->
                 atomic { slot[c * SLOTS + i] = EMPTY;
                          if :: a != 255 && (i + SLOTS - HOME) % SLOTS <= a && value != 0 -> becomes(0) :: else fi };
                 i++
            :: else -> break
            od; i = 0;
            if :: other != c ->
                 do :: i < SLOTS -> slot[other * SLOTS + i] = EMPTY; i++ :: else -> break od; i = 0
               :: else fi
       fi; where = 0; place = 0; a = 0; b = 0; old = 0
  od
}

proctype reader() {
  byte n, saw, c, line, from, left, at, result;
  bool match[LINE]; bool ends;
  do
  :: n == 2 -> break
  :: n < 2 -> n++;
       atomic { looking = true; seen = 1 << value };
again:
       saw = recycled;
       c = root;
       c = word[c];
       result = 0; line = 0; from = HOME % LINE; left = SLOTS / LINE + 1;
       do
       :: left == 0 -> break
       :: left > 0 ->
            at = 0; /* the tags, slot by slot: no more than the processor promises */
            do :: at < LINE -> match[at] = (at >= from && HAS_TAG(slot[c * SLOTS + line + at])); at++ :: else -> break od;
            at = 0; /* those that had it, again */
            do
            :: at < LINE && match[at] ->
                 if :: atomic { slot[c * SLOTS + line + at] > KEY -> result = slot[c * SLOTS + line + at] - KEY }; break
                    :: slot[c * SLOTS + line + at] <= KEY -> at++ fi
            :: at < LINE && !match[at] -> at++
            :: else -> break
            od;
            if :: result != 0 -> break :: else fi;
            at = from; ends = false;
            do :: at < LINE -> if :: slot[c * SLOTS + line + at] == EMPTY -> ends = true; break :: else -> at++ fi :: else -> break od;
            if :: ends -> break :: else fi;
            left--; from = 0; line = (line + LINE) % SLOTS
       od;
       if :: recycled != saw -> goto again :: else fi;
       atomic { assert(seen & (1 << result)); looking = false }
  od
}

init { published[0] = true; atomic { run writer(); run reader() } }
